package guides_test

import (
	"context"
	"fmt"
	"net/http"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/authtest"
	"github.com/coder/websocket"
)

// A WebSocket begins with a request, which is authenticated as any other: coder/websocket is given the client. The connection goes on
// when the token expires, unless the server ends it; then dial again, which gets the new token.
func Example_webSocket() {
	bearer := &authtest.Bearer{} // in place of your authorization server and your API
	srv := authtest.NewServer(bearer)
	defer srv.Close()
	srv.Handle("/echo", http.HandlerFunc(echo))

	tokens := &authretry.TokenSource{Fetch: authretry.ClientCredentialsGrant(bearer.ClientCredentials())}
	client := &http.Client{Transport: authretry.New(&authretry.Bearer{Source: tokens})} // without Timeout, which would end the connection

	ctx := context.Background()
	for _, text := range []string{"one", "two"} {
		conn, _, err := websocket.Dial(ctx, srv.URL+"/echo", &websocket.DialOptions{HTTPClient: client})
		check(err) // its text has the status; to see why, ask Explain about the response that Dial returns besides
		check(conn.Write(ctx, websocket.MessageText, []byte(text)))
		_, answer, err := conn.Read(ctx)
		check(err)
		fmt.Println(string(answer))
		check(conn.Close(websocket.StatusNormalClosure, ""))
		bearer.ExpireNow() // the server no longer wants the token
	}
	fmt.Println("handshakes:", srv.Counts().Requests, "refused:", srv.Counts().Refused, "token requests:", srv.Counts().TokenRequests)
	// Output:
	// one
	// two
	// handshakes: 3 refused: 1 token requests: 2
}

func echo(w http.ResponseWriter, r *http.Request) {
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer conn.CloseNow()
	for {
		kind, text, err := conn.Read(r.Context())
		if err != nil || conn.Write(r.Context(), kind, text) != nil {
			return
		}
	}
}
