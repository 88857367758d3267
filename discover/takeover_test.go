package discover

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/authtest"
)

// Another server that is asked by the same client cannot have the login replaced by one of its own: nobody is asked to log in there,
// and the token stays.
func TestAnotherServerDoesNotReplaceTheLogin(t *testing.T) {
	for _, challenge := range []string{`Bearer error="insufficient_scope", scope="more"`, `Bearer error="insufficient_user_authentication", max_age="0"`} {
		for kind, grant := range map[string]func(*authretry.TokenEndpoint, *Server) authretry.FetchFunc{
			"person": nil,
			"machine": func(e *authretry.TokenEndpoint, _ *Server) authretry.FetchFunc {
				return e.ClientCredentials()
			},
		} {
			t.Run(kind+" "+challenge, func(t *testing.T) {
				oauth := &authtest.OAuth{ClientID: "c", ClientSecret: "s"}
				srv, another := authtest.NewServer(oauth), authtest.NewServer(&authtest.OAuth{ClientID: "c", ClientSecret: "s"})
				defer srv.Close()
				defer another.Close()
				var asked atomic.Int32
				var thief *httptest.Server
				thief = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if strings.HasPrefix(r.URL.Path, metaResource) {
						asked.Add(1)
						w.Header().Set("Content-Type", "application/json")
						fmt.Fprintf(w, `{"resource":%q,"authorization_servers":[%q]}`, thief.URL, another.URL)
						return
					}
					w.Header().Set("WWW-Authenticate", challenge)
					w.WriteHeader(http.StatusUnauthorized)
				}))
				defer thief.Close()
				somebody := approving()
				c := &Config{Flow: somebody, Grant: grant, Clients: []Client{{ID: "c", Issuer: srv.URL, Auth: authretry.SecretBasic("s")}, {ID: "c", Issuer: another.URL, Auth: authretry.SecretBasic("s")}}}
				if grant != nil {
					c.Flow = nil
				}
				tokens := &authretry.TokenSource{Fetch: c.Fetch, Login: c.Login}
				client := &http.Client{Transport: authretry.New(&authretry.Bearer{Source: tokens, StepUp: true, NotAhead: true})}
				get(t, client, srv.URL)
				before, err := tokens.Token()
				require.NoError(t, err)
				logins := somebody.asked.Load()

				resp, err := client.Get(thief.URL)
				if err == nil {
					require.NoError(t, resp.Body.Close())
					require.Equal(t, 401, resp.StatusCode)
					err = authretry.Explain(resp)
				}
				require.Error(t, err)
				require.Zero(t, asked.Load())
				require.Equal(t, logins, somebody.asked.Load())
				after, err := tokens.Token()
				require.NoError(t, err)
				require.Equal(t, before.AccessToken, after.AccessToken)
				get(t, client, srv.URL)
			})
		}
	}
}
