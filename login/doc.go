// Package login has a person log in, by a browser on this machine (RFC 8252, with PKCE) or on another device (RFC 8628), for
// command line programs, agents and desktop programs.
//
// # Basic use
//
// A program that knows its authorization server says what it asks for in an [Authorization], and gives its LoginFunc to a
// TokenSource. A person is then asked when there is no token and no way to get one, and only if a request waits for it:
//
//	endpoint := &authretry.TokenEndpoint{URL: "https://auth.example.com/token", ClientID: "my-cli"}
//	ask := &login.Authorization{
//		Endpoint:  endpoint,
//		URL:       "https://auth.example.com/authorize",
//		DeviceURL: "https://auth.example.com/device",
//		Scopes:    []string{"openid", "offline_access"},
//	}
//	tokens := &authretry.TokenSource{
//		Fetch:  endpoint.Refresh(),
//		Login:  ask.LoginFunc(login.Auto(os.Stderr)),
//		Revoke: endpoint.Revocation("https://auth.example.com/revoke"),
//		Store:  filestore.New(path),
//	}
//	client := &http.Client{Transport: authretry.New(&authretry.Bearer{Source: tokens})}
//
// From then on the token renews itself, in this process and in later ones. However many goroutines and processes need a token, one
// person is asked once: the TokenSource sees to that, over processes by the lock of a store that has LockLogin. If they say no, its error
// wraps [authretry.ErrLoginRequired] and [ErrDeclined], and this process does not ask again before MinRefreshInterval is over. The end of a
// request's context, as by Ctrl-C and signal.NotifyContext, ends a login for which nobody else waits, and frees the port and the lock.
// TokenSource.LoginTimeout bounds it. If a request's own deadline, or http.Client.Timeout, is shorter than a person takes, log in before
// the first request by TokenSource.Obtain.
//
// Package discover finds the authorization server by a 401, and takes a [Flow] of this package.
//
// # Which way
//
// [Browser] opens the person's browser and receives the answer on a loopback address. [Device] shows a code to be typed on any
// device. [Auto] takes the browser where there is one, and the device over SSH and without a display. In continuous integration (the
// variable CI is set) all of them fail at once, unless Browser.Open or Device.Prompt says that somebody is there.
// Either writes to standard error what the person is to do, and can be told to show it otherwise. A Flow of yours can show what
// [Authorization.Code] or [Authorization.Device] returns in a window of its own.
//
// # What a server says
//
// What comes over the network is neither opened nor shown as it is. A page is opened only if it is https, or http to this machine,
// if its address has only letters, digits and characters of URLs that mean nothing to a terminal, and if its host is no IP address in
// a form that only browsers know (127.1); the command that opens it is run without a shell. A code to be typed is printable ASCII. Errors have the error code of the server if that is a known one, and the type of a token that is not
// of the type that was asked for, quoted; none of its texts.
package login
