package main

import (
	"fmt"
	"html"
	"math"
	"strings"
)

var colours = map[string]string{ours: "#0b6e4f", bound: "#888888"}

// picture draws the growths beside each other as an SVG. Both axes are logarithmic.
func picture(growths []growth) string {
	const width, height, left, top, right, bottom = 460, 300, 62, 40, 120, 44
	var b strings.Builder
	columns := 2
	rows := (len(growths) + columns - 1) / columns
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="11">`+"\n", columns*width, rows*height)
	b.WriteString(`<rect width="100%" height="100%" fill="#ffffff"/>` + "\n")
	for i, g := range growths {
		low, high := math.Inf(1), 0.0
		for _, s := range g.series {
			for _, v := range s.ns {
				low, high = min(low, v), max(high, v)
			}
		}
		floor, ceiling := math.Floor(math.Log10(low)), math.Ceil(math.Log10(high))
		if ceiling == floor {
			ceiling++
		}
		first, last := math.Log(float64(g.at[0])), math.Log(float64(g.at[len(g.at)-1]))
		x := func(at int) float64 {
			return left + (math.Log(float64(at))-first)/(last-first)*(width-left-right)
		}
		y := func(ns float64) float64 {
			return top + (ceiling-math.Log10(ns))/(ceiling-floor)*(height-top-bottom)
		}
		fmt.Fprintf(&b, `<g transform="translate(%d %d)">`+"\n", i%columns*width, i/columns*height)
		fmt.Fprintf(&b, `<text x="%d" y="20" font-size="13" font-weight="bold">%s</text>`+"\n", left, html.EscapeString(g.title))
		for decade := floor; decade <= ceiling; decade++ {
			at := y(math.Pow(10, decade))
			fmt.Fprintf(&b, `<line x1="%d" y1="%.1f" x2="%d" y2="%.1f" stroke="#dddddd"/>`, left, at, width-right, at)
			fmt.Fprintf(&b, `<text x="%d" y="%.1f" text-anchor="end">%s</text>`+"\n", left-6, at+4, duration(math.Pow(10, decade)))
		}
		for _, at := range g.at {
			fmt.Fprintf(&b, `<text x="%.1f" y="%d" text-anchor="middle">%d</text>`, x(at), height-bottom+16, at)
		}
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="middle">%s</text>`+"\n", (left+width-right)/2, height-bottom+34, html.EscapeString(g.of))
		labels := labelHeights(g, y)
		for k, s := range g.series {
			colour := colours[s.name]
			if colour == "" {
				colour = []string{"#c1440e", "#2f5aa8", "#8e44ad", "#b8860b", "#444444"}[k%5]
			}
			var points []string
			for j, v := range s.ns {
				points = append(points, fmt.Sprintf("%.1f,%.1f", x(g.at[j]), y(v)))
			}
			weight := 1.5
			if s.name == ours {
				weight = 3
			}
			fmt.Fprintf(&b, `<polyline points="%s" fill="none" stroke="%s" stroke-width="%.1f"/>`, strings.Join(points, " "), colour, weight)
			fmt.Fprintf(&b, `<text x="%d" y="%.1f" fill="%s">%s</text>`+"\n", width-right+6, labels[k]+4, colour, html.EscapeString(s.name))
		}
		b.WriteString("</g>\n")
	}
	b.WriteString("</svg>\n")
	return b.String()
}

// labelHeights returns where the names of the series go, at the ends of their lines but not over each other.
func labelHeights(g growth, y func(float64) float64) []float64 {
	const line = 13
	heights := make([]float64, len(g.series))
	for k, s := range g.series {
		heights[k] = y(s.ns[len(s.ns)-1])
	}
	for range 50 {
		for a := range heights {
			for b := range heights {
				if d := heights[b] - heights[a]; a != b && math.Abs(d) < line {
					if push := (line - math.Abs(d)) / 2; d > 0 || d == 0 && b > a {
						heights[a], heights[b] = heights[a]-push, heights[b]+push
					}
				}
			}
		}
	}
	return heights
}
