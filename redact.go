package authretry

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// A shownField is a field of a configuration as text may show it: in %v and its kin, in JSON, in a log.
type shownField struct {
	name  string
	value any
}

// shown returns a field that anybody may read.
func shown(name string, value any) shownField { return shownField{name, value} }

// redacted returns a field of which text says no more than whether it is set.
func redacted(name, secret string) shownField {
	if secret == "" {
		return shownField{name, ""}
	}
	return shownField{name, "[redacted]"}
}

// formatShown writes a configuration for any verb, in the manner of %#v. Empty strings and false are left out.
//
// Types with secrets have a Format method with a value receiver that calls it, so that no verb shows the secret,
// neither for the value nor for a pointer to it. (Package fmt does not ask Format about
// two mistakes: %w for what is no error, which go vet reports, and %p for what is no pointer.)
func formatShown(w io.Writer, typeName string, fields ...shownField) {
	var list []string
	for _, f := range fields {
		if f.value != "" && f.value != false {
			list = append(list, fmt.Sprintf("%s: %#v", f.name, f.value))
		}
	}
	fmt.Fprintf(w, "%s{%s}", typeName, strings.Join(list, ", "))
}

// marshalShown is formatShown for JSON: an object of the same fields.
func marshalShown(fields ...shownField) ([]byte, error) {
	object := make(map[string]any)
	for _, f := range fields {
		if f.value != "" && f.value != false {
			object[f.name] = f.value
		}
	}
	return json.Marshal(object)
}
