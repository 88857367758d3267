// Package browser tests a login at oidc-provider, and the report of cmd/why401, in a real browser, headless Chromium. It is a module of its own because what drives
// the browser has dependencies.
package browser

import (
	"bytes"
	"context"
	"errors"
	"image"
	"image/color"
	"image/png"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/interop/internal/servers"
	"github.com/authretry/authretry/login"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"
)

// screenshots is the variable that names a folder for the screenshots. If it is not set, nobody keeps them.
const screenshots = "AUTHRETRY_SCREENSHOTS"

// newTab starts a headless Chromium, and returns the context of a tab.
func newTab(t *testing.T) context.Context {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		servers.Missing(t, "chromium is not installed")
	}
	// Chromium cannot make its sandbox as root, nor in many containers. What it is shown here is ours.
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.WindowSize(800, 600),
		chromedp.Flag("disable-dev-shm-usage", true), chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"), chromedp.UserDataDir(t.TempDir()), chromedp.WSURLReadTimeout(2*time.Minute))
	ctx, cancel := chromedp.NewExecAllocator(context.WithoutCancel(t.Context()), options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	require.NoError(t, chromedp.Do(ctx))
	t.Cleanup(func() { _ = chromedp.Cancel(ctx) }) // which waits for its end
	return ctx
}

// consent fills in the pages of oidc-provider: a name and a password, and then that one agrees.
func consent() chromedp.Action[chromedp.Void] {
	const agree chromedp.CSS = `input[name="prompt"][value="consent"] ~ button[type="submit"]`
	return chromedp.Steps(
		chromedp.WaitVisible(css(`input[name="login"]`)), chromedp.SendKeys(css(`input[name="login"]`), "mufasa"),
		chromedp.SendKeys(css(`input[name="password"]`), "x"), chromedp.Click(css(`button[type="submit"]`)),
		chromedp.WaitVisible(agree), chromedp.Click(agree),
	)
}

// css makes sure that a selector is one of CSS, and not a text to be found.
func css(selector string) chromedp.CSS { return chromedp.CSS(selector) }

// limited returns the context of a tab for what takes some minutes at most.
func limited(tab context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(tab, 3*time.Minute)
}

// keep saves a screenshot where somebody wants it, and fails if there is next to nothing on it.
func keep(t *testing.T, name string, shot []byte) {
	t.Helper()
	picture, err := png.Decode(bytes.NewReader(shot))
	require.NoError(t, err)
	require.Greater(t, colours(picture), 16, "the page is blank")
	if dir := os.Getenv(screenshots); dir != "" {
		require.NoError(t, os.MkdirAll(dir, 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), shot, 0o644))
	}
}

// colours returns how many there are in a picture. Text has many, at its edges; a blank page has one.
func colours(picture image.Image) int {
	seen := map[color.Color]bool{}
	for y := picture.Bounds().Min.Y; y < picture.Bounds().Max.Y; y++ {
		for x := picture.Bounds().Min.X; x < picture.Bounds().Max.X; x++ {
			seen[color.NRGBAModel.Convert(picture.At(x, y))] = true
		}
	}
	return len(seen)
}

func TestColours(t *testing.T) {
	require.Equal(t, 1, colours(image.NewNRGBA(image.Rect(0, 0, 10, 10))))
}

// atProvider returns how to log in at oidc-provider.
func atProvider(srv *servers.Server) *login.Authorization {
	return &login.Authorization{Endpoint: &authretry.TokenEndpoint{URL: srv.URL + "/token", ClientID: "cli", Issuer: srv.URL},
		URL: srv.URL + "/auth", DeviceURL: srv.URL + "/device/auth", AnswersWithIssuer: true,
		Scopes: []string{"openid", "offline_access"}, Params: url.Values{"prompt": {"consent"}}}
}

// me asks oidc-provider who has logged in, which needs a login by the flow, and a refresh.
func me(t *testing.T, srv *servers.Server, flow login.Flow) {
	t.Helper()
	a := atProvider(srv)
	tokens := &authretry.TokenSource{Fetch: a.Endpoint.Refresh(), Login: a.LoginFunc(flow)}
	client := &http.Client{Transport: authretry.New(&authretry.Bearer{Source: tokens})}
	for range 2 {
		resp, err := client.Get(srv.URL + "/me")
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.NoError(t, authretry.Explain(resp))
		_, err = tokens.Refresh(t.Context(), nil)
		require.NoError(t, err)
	}
}

// A person logs in through oidc-provider's own pages, and ends up at ours.
func TestLoginInABrowser(t *testing.T) {
	tab := newTab(t)
	srv := servers.OIDCProvider(t, `{"keys":[]}`)
	var address, text, border string
	var history page.GetNavigationHistoryResult
	var shot []byte
	me(t, srv, &login.Browser{Open: func(_ context.Context, to string) error {
		ctx, cancel := limited(tab)
		defer cancel()
		err := chromedp.Do(ctx, chromedp.Navigate(to), consent(), chromedp.WaitVisible(css("main.yes")))
		if err != nil {
			return err
		}
		var errs [5]error
		address, errs[0] = chromedp.Run(ctx, chromedp.Location())
		text, errs[1] = chromedp.Run(ctx, chromedp.Text(css("main")))
		border, errs[2] = chromedp.Run(ctx, chromedp.Evaluate[string](`getComputedStyle(document.querySelector("main")).borderLeftColor`))
		history, errs[3] = chromedp.Run(ctx, chromedp.NavigationEntries())
		shot, errs[4] = chromedp.Run(ctx, chromedp.CaptureScreenshot())
		return errors.Join(errs[:]...)
	}})

	require.Contains(t, text, "You are logged in")
	require.Equal(t, "rgb(42, 138, 62)", border, "the style is allowed by our own Content-Security-Policy")
	u, err := url.Parse(address)
	require.NoError(t, err)
	require.Equal(t, []string{"127.0.0.1", ""}, []string{u.Hostname(), u.RawQuery})
	require.NotEmpty(t, history.Entries)
	for _, entry := range history.Entries {
		require.NotContains(t, entry.URL, "code=", "the code is neither in the address bar nor in the history")
	}
	keep(t, "logged-in.png", shot)
}

// A person who says no sees that they are not logged in.
func TestLoginThatIsDeclinedInABrowser(t *testing.T) {
	tab := newTab(t)
	srv := servers.OIDCProvider(t, `{"keys":[]}`)
	var shot []byte
	a := atProvider(srv)
	browser := &login.Browser{Open: func(_ context.Context, to string) error {
		ctx, cancel := limited(tab)
		defer cancel()
		const cancelLink chromedp.CSS = `a[href*="/abort"]`
		err := chromedp.Do(ctx, chromedp.Navigate(to), chromedp.WaitVisible(cancelLink), chromedp.Click(cancelLink), chromedp.WaitVisible(css("main.no")))
		if err == nil {
			shot, err = chromedp.Run(ctx, chromedp.CaptureScreenshot())
		}
		return err
	}}
	_, err := (&authretry.TokenSource{Login: a.LoginFunc(browser)}).Token()
	require.ErrorIs(t, err, authretry.ErrLoginRequired)
	require.ErrorIs(t, err, login.ErrDeclined)
	keep(t, "declined.png", shot)
}

// A person types the code of a device in the browser, and sees that it is the one that the device shows.
func TestDeviceInABrowser(t *testing.T) {
	tab := newTab(t)
	srv := servers.OIDCProvider(t, `{"keys":[]}`)
	var shown string
	me(t, srv, &login.Device{Prompt: func(_ context.Context, code *login.DeviceCode) error {
		ctx, cancel := limited(tab)
		defer cancel()
		err := chromedp.Do(ctx, chromedp.Navigate(code.VerificationURI), chromedp.WaitVisible(css(`input[name="user_code"]`)),
			chromedp.SendKeys(css(`input[name="user_code"]`), code.UserCode), chromedp.Click(css(`button[type="submit"]`)), chromedp.WaitVisible(css(`p > code`)))
		if err == nil {
			shown, err = chromedp.Run(ctx, chromedp.Text(css(`p > code`)))
		}
		if err == nil {
			err = chromedp.Do(ctx, chromedp.Click(css(`button[autofocus]`)), consent())
		}
		return err
	}})
	require.Regexp(t, `^[A-Z]{4}-[A-Z]{4}$`, shown, "the same as the device's, or nobody were logged in")
}
