package redisstore_test

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"fmt"
	"log"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/redisstore"
	"github.com/redis/go-redis/v9"
	"golang.org/x/oauth2"
)

func ExampleStore() {
	client := redis.NewClient(&redis.Options{Addr: "redis.internal:6379"})
	config := &oauth2.Config{ClientID: "myapp", Endpoint: oauth2.Endpoint{TokenURL: "https://login.example.com/token"}}
	tokens := &authretry.TokenSource{
		Fetch: authretry.RefreshGrant(config),
		Store: &redisstore.Store{Client: client, Key: "myapp:login"},
	}
	fmt.Println(tokens.Store)
	// Output: redisstore.Store{Key: "myapp:login"}
}

// The token is encrypted, and bound to its key, so that nobody can put the token of another login in its place.
func ExampleStore_sealed() {
	secret := make([]byte, 32) // from a key management service, the same for all replicas
	rand.Read(secret)
	block, err := aes.NewCipher(secret)
	if err != nil {
		log.Fatal(err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		log.Fatal(err)
	}
	const key = "myapp:login"
	store := &redisstore.Store{
		Client: redis.NewClient(&redis.Options{Addr: "redis.internal:6379"}),
		Key:    key,
		Seal: func(plaintext []byte) ([]byte, error) {
			return aead.Seal(nil, nil, plaintext, []byte(key)), nil
		},
		Open: func(sealed []byte) ([]byte, error) {
			return aead.Open(nil, nil, sealed, []byte(key))
		},
	}
	sealed, _ := store.Seal([]byte("token"))
	opened, err := store.Open(sealed)
	fmt.Println(string(opened), err)
	sealed[0] ^= 1
	_, err = store.Open(sealed)
	fmt.Println(err)
	// Output:
	// token <nil>
	// cipher: message authentication failed
}
