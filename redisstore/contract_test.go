//go:build unix

package redisstore

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/storetest"
	"github.com/redis/go-redis/v9"
)

// open opens the place "ADDRESS KEY", or "ADDRESS KEY sealed".
func open(place string) (authretry.TokenStore, error) {
	return storeOf(place), nil
}

func storeOf(place string) *Store {
	fields := strings.Fields(place)
	s := &Store{Client: clientOf(fields[0]), Key: fields[1], LockTTL: 1500 * time.Millisecond}
	if len(fields) == 3 {
		s.Seal, s.Open = sealWith(bytes.Repeat([]byte{1}, 32), s.Key)
	}
	return s
}

// contractOptions are those for the server at addr.
func contractOptions(addr, suffix string) storetest.Options {
	var places atomic.Int32
	client := func(place string) (*redis.Client, *Store) {
		s := storeOf(place)
		return s.Client.(*redis.Client), s
	}
	return storetest.Options{
		NewPlace: func() (string, error) { return fmt.Sprintf("%s login%d%s", addr, places.Add(1), suffix), nil },
		LockTTL:  1500 * time.Millisecond,
		Put: func(ctx context.Context, place string, value []byte) error {
			c, s := client(place)
			if _, err := authretry.DecodeRecord(value); err == nil && s.Seal != nil {
				if value, err = s.Seal(value); err != nil {
					return err
				}
			}
			return c.Set(ctx, s.Key, value, 0).Err()
		},
		Find: func(ctx context.Context, place string, value []byte) (bool, error) {
			c, s := client(place)
			got, err := c.Get(ctx, s.Key).Bytes()
			return bytes.Equal(got, value), err
		},
		Remove: func(ctx context.Context, place string) error {
			c, s := client(place)
			return c.Del(ctx, s.Key).Err()
		},
		TakeLock: func(ctx context.Context, place string) error {
			c, s := client(place)
			return c.Del(ctx, s.lockKey()).Err()
		},
		Spoil: func(ctx context.Context, place string) (func() error, error) {
			c, _ := client(place)
			set := func(bytes string) error { return c.ConfigSet(context.Background(), "maxmemory", bytes).Err() }
			return func() error { return set("0") }, set("1")
		},
	}
}

func TestContract(t *testing.T) {
	storetest.Run(t, open, contractOptions(start(t).addr, ""))
}

// With Seal and Open, which have to see what is put there, too.
func TestContractSealed(t *testing.T) {
	o := contractOptions(start(t).addr, " sealed")
	put := o.Put
	o.Put = func(ctx context.Context, place string, value []byte) error {
		if s := storeOf(place); bytes.Contains(value, []byte(`"version":1000`)) {
			sealed, err := s.Seal(value)
			if err != nil {
				return err
			}
			value = sealed
		}
		return put(ctx, place, value)
	}
	o.Find = nil
	o.OneProcess = true // with others it is as without Seal
	storetest.Run(t, open, o)
}
