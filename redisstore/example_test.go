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

// A key of encryption is replaced while the service runs: first by replicas that open with both keys and seal with the old one, then
// by those that seal with the new one, too. Each refresh seals anew, and when all that is stored is sealed with the new key, the old one
// can go. What is sealed with a key that nobody has is left as it is.
func ExampleStore_keyRotation() {
	const key = "myapp:login"
	cipherOf := func(secret string) cipher.AEAD {
		block, err := aes.NewCipher([]byte(secret))
		if err != nil {
			log.Fatal(err)
		}
		aead, err := cipher.NewGCMWithRandomNonce(block)
		if err != nil {
			log.Fatal(err)
		}
		return aead
	}
	old, next := cipherOf("the key of last year, 32 bytes..."[:32]), cipherOf("the key of this year, 32 bytes..."[:32])

	// replica returns the store of a replica that seals with one key and opens with any of several.
	replica := func(seals cipher.AEAD, opens ...cipher.AEAD) *redisstore.Store {
		return &redisstore.Store{
			Client: redis.NewClient(&redis.Options{Addr: "redis.internal:6379"}),
			Key:    key,
			Seal:   func(plaintext []byte) ([]byte, error) { return seals.Seal(nil, nil, plaintext, []byte(key)), nil },
			Open: func(sealed []byte) (plaintext []byte, err error) {
				for _, aead := range opens {
					if plaintext, err = aead.Open(nil, nil, sealed, []byte(key)); err == nil {
						return plaintext, nil
					}
				}
				return nil, err
			},
		}
	}
	before := replica(old, old)
	first := replica(old, next, old)
	second := replica(next, next, old)
	after := replica(next, next)

	opens := func(who string, s *redisstore.Store, sealed []byte) {
		plaintext, err := s.Open(sealed)
		fmt.Printf("%s: %s %v\n", who, plaintext, err)
	}
	sealed, _ := first.Seal([]byte("token"))
	opens("before reads the first step", before, sealed)
	sealed, _ = second.Seal([]byte("token"))
	opens("the first step reads the second", first, sealed)
	opens("after reads the second", after, sealed)
	opens("before reads the second", before, sealed)
	// Output:
	// before reads the first step: token <nil>
	// the first step reads the second: token <nil>
	// after reads the second: token <nil>
	// before reads the second:  cipher: message authentication failed
}
