// Command digest has Digest alone.
package main

import (
	"log"
	"net/http"
	"os"

	"github.com/authretry/authretry"
)

func main() {
	client := &http.Client{Transport: authretry.New(&authretry.Digest{Username: os.Getenv("API_USER"), Password: os.Getenv("API_PASSWORD")})}
	resp, err := client.Get(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	resp.Write(os.Stdout)
}
