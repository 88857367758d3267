//go:build !race

package authretry

const raceDetector = false
