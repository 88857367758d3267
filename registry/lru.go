package registry

import "container/list"

// An lru remembers the values that were used last. It is not safe for concurrent use.
type lru[K comparable, V any] struct {
	limit  int
	values map[K]*list.Element // of used
	used   list.List           // of *lruEntry[K, V]; the latest first
}

type lruEntry[K comparable, V any] struct {
	key   K
	value V
}

func (l *lru[K, V]) get(key K) (value V, ok bool) {
	e, ok := l.values[key]
	if !ok {
		return value, false
	}
	l.used.MoveToFront(e)
	return e.Value.(*lruEntry[K, V]).value, true
}

// put sets a value, and forgets the one that has not been used for longest if there are too many.
func (l *lru[K, V]) put(key K, value V) {
	if e, ok := l.values[key]; ok {
		l.used.MoveToFront(e)
		e.Value.(*lruEntry[K, V]).value = value
		return
	}
	if l.values == nil {
		l.values = make(map[K]*list.Element)
	}
	l.values[key] = l.used.PushFront(&lruEntry[K, V]{key, value})
	if len(l.values) > l.limit {
		l.remove(l.used.Back())
	}
}

// forget forgets the values whose keys are as said.
func (l *lru[K, V]) forget(is func(K) bool) {
	for key, e := range l.values {
		if is(key) {
			l.remove(e)
		}
	}
}

func (l *lru[K, V]) remove(e *list.Element) {
	delete(l.values, e.Value.(*lruEntry[K, V]).key)
	l.used.Remove(e)
}
