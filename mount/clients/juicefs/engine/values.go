package engine

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

var errNoValue = errors.New("needs a value")

// parseDuration reads a duration as JuiceFS does: "1.5" is seconds, "300ms", "1h", "2d", "1d12h".
func parseDuration(value string) (time.Duration, error) {
	if seconds, err := strconv.ParseFloat(value, 64); err == nil && seconds >= 0 && seconds < math.MaxInt32 {
		return time.Duration(seconds * float64(time.Second)), nil
	}
	bad := fmt.Errorf("%q is not a duration such as 1, 0.5, 300ms, 2h or 1d", value)
	var total time.Duration
	rest := value
	if days, after, ok := strings.Cut(value, "d"); ok {
		n, err := strconv.ParseFloat(days, 64)
		if err != nil || n < 0 || n > 36500 {
			return 0, bad
		}
		total, rest = time.Duration(n*24*float64(time.Hour)), after
		if rest == "" {
			return total, nil
		}
	}
	d, err := time.ParseDuration(rest)
	if err != nil || d < 0 {
		return 0, bad
	}
	return total + d, nil
}

var sizeShift = map[byte]int{'B': 0, 'K': 10, 'M': 20, 'G': 30, 'T': 40, 'P': 50}

// parseSize reads a size: a number with a unit letter, or without one in the option's own unit.
func parseSize(value string, unit byte) (uint64, error) {
	bad := fmt.Errorf("%q is not a size such as 300, 300M or 1.5G", value)
	digits := strings.TrimSuffix(value, "iB")
	if digits == "" {
		return 0, bad
	}
	if c := digits[len(digits)-1]; c < '0' || c > '9' {
		unit, digits = strings.ToUpper(string(c))[0], digits[:len(digits)-1]
	}
	shift, ok := sizeShift[unit]
	n, err := strconv.ParseFloat(digits, 64)
	if !ok || err != nil || n < 0 || n*math.Exp2(float64(shift)) >= math.MaxInt64 {
		return 0, bad
	}
	return uint64(n * math.Exp2(float64(shift))), nil
}

// parseMbps reads a bandwidth in Mbit/s, or with the letters M, G, T.
func parseMbps(value string) (int64, error) {
	bad := fmt.Errorf("%q is not a bandwidth in Mbit/s", value)
	factor := 1.0
	digits := value
	if value != "" {
		switch value[len(value)-1] {
		case 'm', 'M':
			digits = value[:len(value)-1]
		case 'g', 'G':
			digits, factor = value[:len(value)-1], 1e3
		case 't', 'T':
			digits, factor = value[:len(value)-1], 1e6
		}
	}
	n, err := strconv.ParseFloat(digits, 64)
	if err != nil || n < 0 || n*factor > math.MaxInt32 {
		return 0, bad
	}
	return int64(n * factor), nil
}

// nearest is the known option with the smallest edit distance, the first in the alphabet among equals.
func nearest(key string) string {
	best, bestDistance := "", math.MaxInt
	for name := range optionTable {
		d := editDistance(key, name)
		if d < bestDistance || d == bestDistance && name < best {
			best, bestDistance = name, d
		}
	}
	return best
}

// editDistance is Levenshtein's.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}
