package authretry

// temporary
type nonces struct{}
type noncesKey struct{}
