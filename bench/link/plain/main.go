// Command plain is what the others are compared with: a program with an http.Client of its own.
package main

import (
	"log"
	"net/http"
	"os"
)

func main() {
	client := &http.Client{Transport: http.DefaultTransport.(*http.Transport).Clone()}
	resp, err := client.Get(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	resp.Write(os.Stdout)
}
