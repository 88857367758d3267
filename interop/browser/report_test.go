package browser

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/authretry/authretry/authtest"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"
)

// secret is what no page may show.
const secret = "open-sesame-4711"

// reports returns the pages that why401 -html writes of some exchanges, by name.
func reports(t *testing.T) map[string]string {
	t.Helper()
	dir := t.TempDir()
	program := filepath.Join(dir, "why401")
	out, err := exec.Command("go", "build", "-o", program, "github.com/authretry/authretry/cmd/why401").CombinedOutput()
	require.NoError(t, err, string(out))
	start := func(h http.Handler) string {
		s := httptest.NewServer(h)
		t.Cleanup(s.Close)
		return s.URL
	}
	guarded := authtest.NewServer(&authtest.Digest{Username: "Aladdin", Password: "another", Realm: "cave", Opaque: "5ccc"},
		&authtest.Basic{Username: "Aladdin", Password: "another", Realm: "cave"})
	t.Cleanup(guarded.Close)
	oauth := authtest.NewServer(&authtest.OAuth{Scope: "tools"})
	t.Cleanup(oauth.Close)
	redirecting := start(http.RedirectHandler(guarded.URL+"/treasure", http.StatusFound))
	cookie := start(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch _, err := r.Cookie("sid"); {
		case err == nil:
		case r.URL.Path == "/":
			http.SetCookie(w, &http.Cookie{Name: "sid", Value: secret, Path: "/"})
			http.Redirect(w, r, "/checked", http.StatusFound)
		default:
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	hostile := start(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		const markup = `</title></style></code><script>document.title="run"</script><img src=http://127.0.0.1:9/x onerror=document.title=1><b class=hostile>`
		w.Header().Set("WWW-Authenticate", `Bearer realm="`+strings.ReplaceAll(markup, `"`, `\"`)+`", error_description="`+strings.Repeat("endless", 60)+`"`)
		w.Header().Set("X-Request-Id", markup+r.Header.Get("Authorization"))
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = w.Write([]byte(markup + secret))
	}))

	pages := map[string]string{}
	for name, args := range map[string][]string{
		"password": {"-u", "Aladdin", "-password-env", "SECRET", guarded.URL + "/treasure"},
		"redirect": {"-u", "Aladdin", "-password-env", "SECRET", redirecting},
		"cookie":   {cookie},
		"login":    {"-login", oauth.URL},
		"hostile":  {"-token-env", "SECRET", hostile},
	} {
		pages[name] = filepath.Join(dir, name+".html")
		cmd := exec.Command(program, append([]string{"-html", pages[name]}, args...)...)
		cmd.Env = append(os.Environ(), "SECRET="+secret)
		printed, err := cmd.CombinedOutput()
		require.True(t, err == nil || cmd.ProcessState.ExitCode() == 1 || cmd.ProcessState.ExitCode() == 3, string(printed))
		text, err := os.ReadFile(pages[name])
		require.NoError(t, err, string(printed))
		require.NotContains(t, string(text), secret)
	}
	return pages
}

// The page that why401 -html writes is shown as it is meant to be, on light and dark screens and on a phone: its own style is
// allowed by its own policy, it loads and runs nothing whatever a server has sent, and nothing is wider than the screen.
func TestReportOfWhy401(t *testing.T) {
	tab := newTab(t)
	pages := reports(t)
	ctx, cancel := context.WithTimeout(tab, 10*time.Minute) // for many pages, on a machine that may be busy
	defer cancel()
	var mu sync.Mutex
	var loaded, complaints []string
	require.NoError(t, chromedp.Listen(ctx, func(ev any) {
		mu.Lock()
		defer mu.Unlock()
		switch ev := ev.(type) {
		case *network.EventRequestWillBeSent:
			loaded = append(loaded, ev.Request.URL)
		case *log.EventEntryAdded:
			complaints = append(complaints, ev.Entry.Text)
		}
	}))
	_, err := chromedp.Call(ctx, network.Enable, network.EnableParams{})
	require.NoError(t, err)
	_, err = chromedp.Call(ctx, log.Enable, struct{}{})
	require.NoError(t, err)

	backgrounds := map[string]bool{}
	for _, look := range []struct {
		name, scheme  string
		width, height int64
	}{{"light", "light", 1100, 800}, {"dark", "dark", 1100, 800}, {"phone", "dark", 390, 800}} {
		for name, file := range pages {
			require.NoError(t, chromedp.Do(ctx, chromedp.EmulateViewport(look.width, look.height)))
			_, err := chromedp.Call(ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: look.scheme}}})
			require.NoError(t, err)
			require.NoError(t, chromedp.Do(ctx, chromedp.Navigate("file://"+file), chromedp.WaitVisible(css("footer"))))

			var errs [5]error
			var seen struct {
				background, font, title string
				wide                    float64
				scripts                 float64
			}
			seen.background, errs[0] = chromedp.Run(ctx, chromedp.Evaluate[string](`getComputedStyle(document.body).backgroundColor`))
			seen.font, errs[1] = chromedp.Run(ctx, chromedp.Evaluate[string](`getComputedStyle(document.querySelector("h1")).fontFamily`))
			seen.title, errs[2] = chromedp.Run(ctx, chromedp.Title())
			seen.wide, errs[3] = chromedp.Run(ctx, chromedp.Evaluate[float64](`document.documentElement.scrollWidth - document.documentElement.clientWidth`))
			seen.scripts, errs[4] = chromedp.Run(ctx, chromedp.Evaluate[float64](`document.querySelectorAll("script, img, .hostile, [onerror]").length`))
			require.NoError(t, errors.Join(errs[:]...))
			require.Contains(t, seen.font, "Charter", "the style is allowed by the page's own policy")
			require.Zero(t, seen.wide, "%s on %s is wider than the screen", name, look.name)
			require.Zero(t, seen.scripts, "what a server sends is text")
			require.NotEqual(t, "run", seen.title)
			backgrounds[look.scheme+seen.background] = true

			shot, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
			require.NoError(t, err)
			keep(t, "why401-"+name+"-"+look.name+".png", shot)
		}
	}
	require.Len(t, backgrounds, 2, "one for light screens, and one for dark ones")
	mu.Lock()
	defer mu.Unlock()
	require.Empty(t, complaints, "of the browser, about the policy for instance")
	require.Len(t, loaded, 3*len(pages), "the pages, and nothing else")
	for _, url := range loaded {
		require.Contains(t, url, "file://")
	}
}
