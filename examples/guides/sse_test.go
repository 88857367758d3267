package guides_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/authtest"
)

// follow calls handle with the data of each event (https://html.spec.whatwg.org/multipage/server-sent-events.html), and asks again from where
// it was when the server ends a response. It returns handle's error, or why it was refused. Yours waits before it asks again.
func follow(ctx context.Context, client *http.Client, url string, handle func(data string) error) error {
	for last := ""; ; {
		req, err := http.NewRequestWithContext(ctx, "GET", url, nil)
		if err != nil {
			return err
		}
		req.Header.Set("Accept", "text/event-stream")
		if last != "" {
			req.Header.Set("Last-Event-ID", last)
		}
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		if resp.StatusCode != http.StatusOK {
			resp.Body.Close()
			return errors.Join(authretry.Explain(resp), errors.New(resp.Status))
		}
		for lines := bufio.NewScanner(resp.Body); err == nil && lines.Scan(); {
			if id, ok := strings.CutPrefix(lines.Text(), "id: "); ok {
				last = id
			} else if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				err = handle(data)
			}
		}
		resp.Body.Close()
		if err != nil {
			return err
		}
	}
}

// Events come by a response that does not end. When it does end, because the token has expired for instance, the next request gets a new one.
func Example_serverSentEvents() {
	bearer := &authtest.Bearer{} // in place of your authorization server and your API
	srv := authtest.NewServer(bearer)
	defer srv.Close()
	srv.Handle("/events", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		last, _ := strconv.Atoi(r.Header.Get("Last-Event-ID"))
		for i := last + 1; i <= last+2; i++ {
			fmt.Fprintf(w, "id: %d\ndata: event %d\n\n", i, i)
			http.NewResponseController(w).Flush()
		}
		bearer.ExpireNow() // the server no longer wants the token, and ends the response
	}))

	tokens := &authretry.TokenSource{Fetch: authretry.ClientCredentialsGrant(bearer.ClientCredentials())}
	client := &http.Client{Transport: authretry.New(&authretry.Bearer{Source: tokens})} // without Timeout, which would end the response
	enough := errors.New("enough")
	err := follow(context.Background(), client, srv.URL+"/events", func(data string) error {
		fmt.Println(data)
		if data == "event 4" {
			return enough
		}
		return nil
	})
	fmt.Println(errors.Is(err, enough), "requests:", srv.Counts().Requests, "refused:", srv.Counts().Refused)
	// Output:
	// event 1
	// event 2
	// event 3
	// event 4
	// true requests: 3 refused: 1
}
