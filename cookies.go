package authretry

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// Bounds of the cookies of a refusal that are put into the Jar. Browsers have lower ones.
const (
	maxCookies = 256
	maxCookie  = 8 << 10 // bytes of one
)

// addCookies adds to the retry what the refusal's Set-Cookie put into the Jar, as http.Client would have.
func (x *exchange) addCookies(req *http.Request, refusal *http.Response) {
	jar := x.jar
	if jar == nil {
		return
	}
	var lines []string
	for _, line := range refusal.Header["Set-Cookie"] {
		if len(line) <= maxCookie && len(lines) < maxCookies {
			lines = append(lines, line)
		}
	}
	some := http.Response{Header: http.Header{"Set-Cookie": lines}}
	cookies := some.Cookies()
	if len(cookies) == 0 {
		return
	}
	before := cookieTexts(jar, req.URL)
	jar.SetCookies(req.URL, cookies)
	after := cookieTexts(jar, req.URL)
	lines = req.Header["Cookie"]
	if n := len(lines) - 1; n >= 0 { // the last, since http.Client makes one of all where it adds anything
		if own := withoutCookies(lines[n], before); own != "" {
			after = append([]string{own}, after...)
		}
		lines = lines[:n]
	}
	if len(after) > 0 {
		lines = append(slices.Clip(lines), strings.Join(after, cookieSeparator))
	}
	delete(req.Header, "Cookie")
	if len(lines) > 0 {
		req.Header["Cookie"] = lines
	}
}

// cookieSeparator is what http.Request.AddCookie puts between two.
const cookieSeparator = "; "

// cookieTexts returns the cookies of a Jar as http.Client adds them to a request.
func cookieTexts(jar http.CookieJar, u *url.URL) []string {
	var texts []string
	for _, c := range jar.Cookies(u) {
		one := http.Request{Header: make(http.Header)} // to add each to the last would take quadratic time
		one.AddCookie(c)
		texts = append(texts, one.Header["Cookie"]...)
	}
	return texts
}

// withoutCookies returns a line of Cookie without those that http.Client has added, each of which is taken out once, the last first: what
// the caller has written comes before them. That is left as it is, whatever it may be.
func withoutCookies(line string, added []string) string {
	left := make(map[string]int)
	for _, text := range added {
		left[text]++
	}
	own := strings.Split(line, cookieSeparator)
	slices.Reverse(own)
	own = slices.DeleteFunc(own, func(text string) bool {
		left[text]--
		return left[text] >= 0
	})
	slices.Reverse(own)
	return strings.Join(own, cookieSeparator)
}
