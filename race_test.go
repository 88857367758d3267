//go:build race

package authretry

const raceDetector = true
