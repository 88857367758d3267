package authretry_test

import (
	"errors"
	"fmt"
	"net/http"
	"regexp"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/authtest"
)

// explained makes an error of a refusal, which says what to do. It goes round a Transport whose client is handed to a library.
type explained struct{ http.RoundTripper }

func (e explained) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := e.RoundTripper.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if why := authretry.Explain(resp); why != nil {
		return nil, errors.Join(why, resp.Body.Close())
	}
	return resp, nil
}

// A library that is given an http.Client often shows no more of a refusal than its status, and Explain needs the response. Then a
// RoundTripper of yours asks Explain first, and returns an error. It is not a part of Transport, because net/http wants a
// RoundTripper to return each response as it is: who reads the body or the header of a 401 would find neither.
func ExampleExplain_library() {
	srv := authtest.NewServer(&authtest.Basic{Realm: "letters", Username: "Mufasa", Password: "Circle of Life"})
	defer srv.Close()
	library := func(client *http.Client) error { // stands for code of others
		resp, err := client.Get(srv.URL)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return errors.New(resp.Status)
		}
		return nil
	}

	transport := authretry.New(&authretry.Basic{Username: "Mufasa", Password: "wrong"})
	fmt.Println(library(&http.Client{Transport: transport}))
	err := library(&http.Client{Transport: explained{transport}})
	fmt.Println(regexp.MustCompile(`127\.0\.0\.1:\d+`).ReplaceAllString(err.Error(), "ADDRESS"))
	// Output:
	// 401 Unauthorized
	// Get "http://ADDRESS": authretry: http://ADDRESS answered 401: the Basic credentials were refused; it asks for Basic (realm "letters"); check that they are right, and meant for this server
}
