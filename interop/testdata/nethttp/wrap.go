// This file joins package net/http while its tests run.

package http

// TestingWrap is applied to the RoundTripper of every Client, and to every other whose RoundTrip a test calls.
var TestingWrap = func(rt RoundTripper) RoundTripper { return rt }

// transport takes the place of the method that has been renamed ownTransport.
func (c *Client) transport() RoundTripper { return testingWrap(c.ownTransport()) }

// testingWrap is TestingWrap, under a name that the tests of either package can call.
func testingWrap(rt RoundTripper) RoundTripper { return TestingWrap(rt) }
