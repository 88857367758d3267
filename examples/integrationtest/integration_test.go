// Package integrationtest shows how a program that uses authretry is tested against a server that asks for credentials.
package integrationtest

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/authtest"
)

// upload is the code under test: it stores a report.
func upload(client *http.Client, url, report string) error {
	resp, err := client.Post(url, "text/plain", strings.NewReader(report))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := authretry.Explain(resp); err != nil { // says why the server refuses
		return err
	}
	if resp.StatusCode != http.StatusOK { // which Explain does not judge
		return fmt.Errorf("the report was not stored: %s", resp.Status)
	}
	return nil
}

// Explain tells refusals from all else. Whether the report was stored is another question.
func TestUploadNoticesThatNothingWasStored(t *testing.T) {
	guard := &authtest.Digest{Username: "Mufasa", Password: "Circle of Life"}
	srv := authtest.NewServer(guard)
	defer srv.Close()
	client := &http.Client{Transport: authretry.New(&authretry.Digest{Username: "Mufasa", Password: "Circle of Life"})}
	srv.Inject("/", 1, authtest.Reply(500, nil, "the disk is full"))
	if err := upload(client, srv.URL, "all is well"); err == nil || !strings.Contains(err.Error(), "500") {
		t.Errorf("the server had answered 500, and upload says %v", err)
	}
	guard.SetPassword("changed")
	var refused *authretry.Rejection
	if err := upload(client, srv.URL, "all is well"); !errors.As(err, &refused) || refused.Reason != authretry.ReasonCredentialsRefused {
		t.Errorf("the password was wrong, and upload says %v", err)
	}
}

func TestUploadSurvivesAStaleNonce(t *testing.T) {
	guard := &authtest.Digest{Username: "Mufasa", Password: "Circle of Life"}
	srv := authtest.NewServer(guard)
	defer srv.Close()
	client := &http.Client{Transport: authretry.New(&authretry.Digest{Username: "Mufasa", Password: "Circle of Life"})}

	for range 2 {
		if err := upload(client, srv.URL, "all is well"); err != nil {
			t.Fatal(err)
		}
		guard.GoStale()
	}
	for _, r := range srv.Requests() {
		t.Log(r)
		if r.Decision == authtest.Accepted && r.BodyLength != int64(len("all is well")) {
			t.Errorf("the report was cut short: %s", r)
		}
	}
}

// In a synctest bubble an hour passes at once.
func TestTokensAreRenewedBeforeTheyExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bearer := &authtest.Bearer{TokenLifetime: time.Hour}
		srv := authtest.NewPipeServer(bearer)
		defer srv.Close()
		tokens := &authretry.TokenSource{
			Fetch:      authretry.ClientCredentialsGrant(bearer.ClientCredentials()),
			HTTPClient: srv.Client(),
		}
		client := &http.Client{Transport: &authretry.Transport{
			Base:    srv.Client().Transport,
			Schemes: []authretry.Scheme{&authretry.Bearer{Source: tokens}},
		}}
		for range 24 * 60 {
			if err := upload(client, srv.URL, "all is well"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
		}
		if refused := srv.Counts().Refused; refused != 0 {
			t.Errorf("%d requests met a token that had expired", refused)
		}
	})
}
