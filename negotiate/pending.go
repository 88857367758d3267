package negotiate

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// A pending is something that is under way for all who wait for it, and tied to none of them.
type pending[T any] struct {
	done  chan struct{} // closed when what follows is set
	value T
	err   error
}

// begin calls f in a goroutine, with a context that ends after the limit. A panic of f is an error.
func begin[T any](limit time.Duration, f func(context.Context) (T, error)) *pending[T] {
	p := &pending[T]{done: make(chan struct{}), err: errors.New("negotiate: what was called has ended its goroutine")}
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		defer close(p.done)
		defer func() {
			if r := recover(); r != nil {
				p.err = fmt.Errorf("negotiate: what was called has panicked with a %T", r)
			}
		}()
		p.value, p.err = f(ctx)
	}()
	return p
}

// wait returns what has come of it, or the cause of the end of ctx.
func (p *pending[T]) wait(ctx context.Context) (value T, err error) {
	select {
	case <-p.done:
		return p.value, p.err
	default:
	}
	select {
	case <-p.done:
		return p.value, p.err
	case <-ctx.Done():
		return value, context.Cause(ctx)
	}
}

// hasFailed reports whether it has ended with an error.
func (p *pending[T]) hasFailed() bool {
	select {
	case <-p.done:
		return p.err != nil
	default:
		return false
	}
}
