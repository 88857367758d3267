//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd || windows)

package main

import "os"

// terminalWidth returns how many columns a terminal has; 0 if that is not known, as here.
func terminalWidth(*os.File) int { return 0 }
