package main

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// What there is to be said where the answer will be another one later.

func (in *inquiry) tooMany() *cause {
	if in.disguise != nil && in.disguise.Name == "quota" {
		return nil // waiting does not help
	}
	if in.resp == nil || in.resp.StatusCode != http.StatusTooManyRequests && (in.resp.Header.Get("Retry-After") == "" || !in.refused()) {
		return nil
	}
	text := "The server limits how often it may be asked."
	if after := in.resp.Header.Get("Retry-After"); after != "" {
		text += " Retry-After says " + in.clean.text(after, 40) + "."
	}
	if in.resp.StatusCode != http.StatusTooManyRequests {
		return &cause{"too-many", likely, text + " The status " + statusText(in.resp.StatusCode) + " does not say so.", "Wait. If it is refused after that, too, it is the credentials."}
	}
	return &cause{"too-many", certain, text, "Wait. After many wrong passwords, servers refuse the right one, too."}
}

// sayHowLong puts how long to wait before what to do, if the server says so.
func (in *inquiry) sayHowLong(c *cause) {
	if c.Name != "too-many" && c.Name != "rate" && c.Name != "unavailable" || in.resp == nil {
		return
	}
	wait, header := in.wait()
	const longest = 31 * 24 * time.Hour // what is longer is hardly meant
	if wait <= 0 || wait > longest {
		return
	}
	_, rest, _ := strings.Cut(c.Fix, ". ")
	if c.Name == "too-many" {
		rest = strings.TrimPrefix(c.Fix, "Wait. ")
	}
	c.Fix = strings.TrimSpace("Wait " + about(wait) + ": " + header + " says so. " + rest)
}

// wait returns how long the server says to wait, and the header that does; 0 if it does not say.
func (in *inquiry) wait() (time.Duration, string) {
	now := in.now
	if date, ok := in.date(); ok {
		now = date // the server's clock decides
	}
	header := in.resp.Header
	if value := header.Get("Retry-After"); value != "" { // RFC 9110 §10.2.3
		if seconds, err := strconv.ParseUint(value, 10, 31); err == nil {
			return time.Duration(seconds) * time.Second, "Retry-After"
		}
		if t, err := http.ParseTime(value); err == nil && !now.IsZero() {
			return t.Sub(now), "Retry-After"
		}
	}
	seconds, err := strconv.ParseUint(header.Get("X-Ratelimit-Reset"), 10, 40)
	const longest = 1e8 // some 3 years, so that what is more is a time, as GitHub has it
	switch {
	case err != nil || now.IsZero() || header.Get("X-Ratelimit-Remaining") != "0":
		return 0, ""
	case seconds < longest:
		return time.Duration(seconds) * time.Second, "X-RateLimit-Reset"
	}
	return time.Unix(int64(seconds), 0).Sub(now), "X-RateLimit-Reset"
}
