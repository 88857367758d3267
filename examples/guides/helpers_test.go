package guides_test

import (
	"errors"
	"io"
	"log"
	"net/http"

	"github.com/authretry/authretry"
)

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// get returns what a URL has. A refusal is an error that says why, and so is any other status than 200.
func get(client *http.Client, url string) (string, error) {
	resp, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if err := authretry.Explain(resp); err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK {
		return "", errors.New(resp.Status)
	}
	text, err := io.ReadAll(resp.Body)
	return string(text), err
}
