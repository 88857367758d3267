package guides_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

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
		last, err = readEvents(resp.Body, last, handle)
		resp.Body.Close()
		if err != nil {
			return err
		}
	}
}

const maxLine = 1 << 20 // bytes

// readEvents calls handle for each event, and returns the ID of the last. An event counts when the empty line at its end is there: one that is
// cut off comes again by the next response.
func readEvents(body io.Reader, last string, handle func(data string) error) (string, error) {
	id, data := last, []string(nil)
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		field, value, _ := strings.Cut(lines.Text(), ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case field == "id":
			id = value
		case field == "data":
			data = append(data, value)
		case lines.Text() == "":
			if data != nil {
				if err := handle(strings.Join(data, "\n")); err != nil {
					return last, err
				}
			}
			last, data = id, nil
		}
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) { // it would be so again; of other errors, the next request is to say more
		return last, lines.Err()
	}
	return last, nil
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

// What a connection takes with it that breaks in the middle of an event comes again, and an event that is too large is an error, and not asked
// for without end.
func TestFollow(t *testing.T) {
	big := strings.Repeat("x", maxLine)
	answers := []string{
		"id: 1\ndata:one\ndata: more\n\nid: 2\n", // the event is cut off
		"id: 2\ndata: two\n\n: nothing\n\nid: 3\ndata: th",
		"id: 3\ndata: " + big[:1<<17] + "\n\n",
		"data: " + big + "\n\n",
	}
	var asked []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.Header.Get("Last-Event-ID"))
		fmt.Fprint(w, answers[min(len(asked), len(answers))-1])
	}))
	defer srv.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var events []string
	err := follow(ctx, srv.Client(), srv.URL, func(data string) error {
		events = append(events, data[:min(len(data), 10)])
		return nil
	})
	if !errors.Is(err, bufio.ErrTooLong) {
		t.Error(err)
	}
	if got := fmt.Sprintf("%q %q", events, asked); got != `["one\nmore" "two" "xxxxxxxxxx"] ["" "1" "2" "3"]` {
		t.Error(got)
	}
}
