package discover

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// Validate says what is wrong with the fields, as far as that can be told without asking anybody: whether there is a Flow or a Grant;
// the URLs; Clients, and, if it has a method Validate() error as an [authretry.PrivateKeyJWT] has, their Auth; and Registration. A
// program that calls it when it starts need not wait for the first request to hear that. No [authretry.Transport.Validate] calls it.
// The fields must not be changed any more after it.
func (c *Config) Validate() error {
	switch {
	case c == nil:
		return errors.New("discover: the Config is nil")
	case c.Flow == nil && c.Grant == nil:
		return errNoWay
	}
	if c.Resource != "" {
		if err := c.checkOwn("Resource", c.Resource); err != nil {
			return err
		}
	}
	for i, issuer := range c.Issuers {
		if err := c.checkOwn(fmt.Sprintf("Issuers[%d]", i), issuer); err != nil {
			return err
		}
	}
	for i, client := range c.Clients {
		if err := c.checkClient(fmt.Sprintf("Clients[%d]", i), client); err != nil {
			return err
		}
	}
	if c.ClientMetadataURL != "" && !isClientID(c.ClientMetadataURL) {
		return errors.New("discover: Config.ClientMetadataURL must be an https URL with a path, without user name and fragment")
	}
	if _, err := json.Marshal(c.Registration); err != nil {
		return fmt.Errorf("discover: %v", errRegistration)
	}
	return nil
}

// checkOwn returns an error if a URL that the program has named would not be asked, or cannot be a name.
func (c *Config) checkOwn(field, named string) error {
	u, err := url.Parse(named)
	if err == nil {
		u, err = c.check(place{url: u}, named)
	}
	if err != nil || u.RawQuery != "" || u.ForceQuery {
		return fmt.Errorf("discover: Config.%s must be an https URL, or one of http to this machine, without user name, query and fragment", field)
	}
	return nil
}

// isClientID reports whether a URL can be that of a document which describes a client.
func isClientID(named string) bool {
	u, err := url.Parse(named)
	return err == nil && u.Scheme == "https" && u.Hostname() != "" && u.Path != "" && u.User == nil && !strings.Contains(named, "#")
}

func (c *Config) checkClient(field string, client Client) error {
	if client.ID == "" {
		return fmt.Errorf("discover: Config.%s has no ID", field)
	}
	if client.Issuer != "" {
		if err := c.checkOwn(field+".Issuer", client.Issuer); err != nil {
			return err
		}
	}
	if v, ok := client.Auth.(interface{ Validate() error }); ok {
		if err := v.Validate(); err != nil {
			return fmt.Errorf("discover: Config.%s.Auth: %w", field, err)
		}
	}
	return nil
}
