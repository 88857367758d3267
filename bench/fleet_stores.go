package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"time"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/internal/pgtest"
	"github.com/authretry/authretry/redisstore"
	"github.com/authretry/authretry/sqlstore"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/redis/go-redis/v9"
)

// redisFleet starts a Redis of its own; nil if there is none on this machine.
func redisFleet() (*fleetStore, error) {
	if _, err := exec.LookPath("redis-server"); err != nil {
		return nil, nil
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	addr := l.Addr().String()
	l.Close()
	dir, err := os.MkdirTemp("", "bench-redis-")
	if err != nil {
		return nil, err
	}
	_, port, _ := net.SplitHostPort(addr)
	cmd := exec.Command("redis-server", "--save", "", "--bind", "127.0.0.1", "--port", port, "--dir", dir)
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	client := redis.NewClient(&redis.Options{Addr: addr})
	s := &fleetStore{
		open: func() (authretry.TokenStore, error) { return &redisstore.Store{Client: client, Key: "login"}, nil },
		cost: func() (float64, error) { return scripts(client) },
		end: func() {
			client.Close()
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			os.RemoveAll(dir)
		},
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if err = client.Ping(context.Background()).Err(); err == nil {
			return s, nil
		}
		if time.Now().After(end) {
			s.end()
			return nil, err
		}
	}
}

// scripts returns how many scripts a Redis has run.
func scripts(client *redis.Client) (n float64, err error) {
	text, err := client.Info(context.Background(), "commandstats").Result()
	for line := range strings.Lines(text) {
		var calls float64
		for _, command := range []string{"evalsha", "eval"} {
			if rest, ok := strings.CutPrefix(line, "cmdstat_"+command+":calls="); ok {
				fmt.Sscanf(rest, "%f", &calls)
				n += calls
			}
		}
	}
	return n, err
}

// A statementCounter counts what is sent to PostgreSQL.
type statementCounter struct{ atomic.Int64 }

func (c *statementCounter) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	c.Add(1)
	return ctx
}

func (c *statementCounter) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// sqlFleet starts a PostgreSQL of its own, of which the fleet has 20 connections; nil if there is none on this machine.
func sqlFleet() (*fleetStore, error) {
	pg, err := pgtest.Start()
	if errors.Is(err, pgtest.ErrNotInstalled) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	config, err := pgx.ParseConfig(pg.DSN("owner"))
	if err != nil {
		pg.Close()
		return nil, err
	}
	var sent statementCounter
	config.Tracer = &sent
	db := stdlib.OpenDB(*config)
	db.SetMaxOpenConns(20)
	db.SetMaxIdleConns(20)
	s := &fleetStore{
		open: func() (authretry.TokenStore, error) { return &sqlstore.Store{DB: db, Name: "login"}, nil },
		cost: func() (float64, error) { return float64(sent.Load()), nil },
		end: func() {
			db.Close()
			pg.Close()
		},
	}
	if _, err := db.Exec(sqlstore.Schema); err != nil {
		s.end()
		return nil, err
	}
	return s, nil
}
