package main

import (
	"testing"

	"github.com/authretry/authretry/internal/thorough"
)

func TestMain(m *testing.M) { thorough.Main(m) }
