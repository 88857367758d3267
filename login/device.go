package login

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/oauth2"
)

// Device has a person log in by a browser on any device (RFC 8628): it shows a code, which they type at the authorization server's
// page, and asks the server until they have agreed. It needs neither a browser nor a port here. An attacker
// who gets the person to type the attacker's code is logged in as that person (§5.4): prefer [Browser] where there is one, as [Auto] does.
//
// The zero Device is ready. It is safe for concurrent use. It must not be changed after its first use.
type Device struct {
	// Prompt shows the code and where to type it. The server is asked after it has returned. If it fails, so does the login.
	// If it is nil, they are written to Out, unless nobody can read them there: if Out is io.Discard, or in continuous integration
	// (the variable CI is set), the login fails at once. A service that shows the code in its log on purpose, in
	// continuous integration too, sets Prompt. A test plays the person here.
	Prompt func(ctx context.Context, d *DeviceCode) error

	// Out is where the person reads what to do, and at the end that they are logged in. If it is nil, that is os.Stderr, or nowhere if
	// Prompt is set.
	Out io.Writer
}

// Login implements [Flow].
func (d *Device) Login(ctx context.Context, a *Authorization) (*oauth2.Token, error) {
	if a == nil {
		return nil, errors.New("login: there is no Authorization")
	}
	if err := d.whyNobody(here()); err != nil {
		return nil, err
	}
	code, err := a.Device(ctx)
	if err != nil {
		return nil, err
	}
	prompt := d.Prompt
	if prompt == nil {
		prompt = d.print
	}
	if err := prompt(ctx, code); err != nil {
		return nil, fmt.Errorf("login: the code could not be shown (Device.Prompt): %w", err)
	}
	t, err := code.Await(ctx)
	if err != nil {
		return nil, err
	}
	if d.Prompt == nil || d.Out != nil {
		fmt.Fprintln(outOr(d.Out), "You are logged in.")
	}
	return t, nil
}

// whyNobody returns an error if nobody would ever see the code.
func (d *Device) whyNobody(in surroundings) error {
	switch {
	case d.Prompt != nil:
	case d.Out == io.Discard:
		return errors.New("login: nobody would see the code: Device.Out is io.Discard, and there is no Device.Prompt; set either")
	case in.isCI():
		return errCI("set Device.Prompt to what shows them the code")
	}
	return nil
}

// print shows the code on a terminal. It has no character that is not printable ASCII.
func (d *Device) print(ctx context.Context, code *DeviceCode) error {
	out := outOr(d.Out)
	fmt.Fprintf(out, "To log in at %s, open this address in a browser, on any device:\n\n    %s\n\nand enter the code\n\n    %s\n\n",
		hostOf(code.VerificationURI), code.VerificationURI, code.UserCode)
	if code.VerificationURIComplete != "" {
		fmt.Fprintf(out, "Or open this one, and see that it shows the same code:\n\n    %s\n\n", code.VerificationURIComplete)
	}
	until := code.Expiry
	if deadline, ok := ctx.Deadline(); ok && deadline.Before(until) {
		until = deadline
	}
	fmt.Fprintf(out, "Waiting for you to log in there, until %s ...\n", until.Local().Format(time.TimeOnly))
	return nil
}
