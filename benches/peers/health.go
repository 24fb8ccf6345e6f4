// The health-check pattern as a program for net/http is usually written, for comparison.
//
// A handler at / keeps a moving average of the time that a request takes. At or above the threshold every request
// gets 503, and one goroutine sleeps for the cooldown and starts the average afresh. Its faults are the pattern's own:
// the first sample becomes the average, only requests to / start the reset, and all traffic returns at once.
package main

import (
	"flag"
	"fmt"
	"log"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// The average age in samples, as plimsoll's default.
const age = 30

// average is an exponentially weighted moving average in milliseconds; zero stands for no sample yet.
type average struct {
	mutex sync.Mutex
	value float64
}

func (a *average) add(sample float64) {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	if a.value == 0 {
		a.value = sample
		return
	}
	const alpha = 2.0 / (age + 1)
	a.value += alpha * (sample - a.value)
}

func (a *average) get() float64 {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	return a.value
}

func (a *average) reset() {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	a.value = 0
}

func main() {
	addr := flag.String("addr", "127.0.0.1:8080", "address to serve on")
	work := flag.Duration("work", 0, "how long each request on / takes")
	slots := flag.Int("slots", 0, "how many handlers work at once, the others wait; 0 is no bound")
	threshold := flag.Duration("threshold", time.Second, "average request time at which the service is unhealthy")
	cooldown := flag.Duration("cooldown", time.Second, "how long the reset sleeps")
	flag.Parse()

	var times average
	var resetting atomic.Bool
	var takes atomic.Int64
	takes.Store(int64(*work))
	limit := float64(*threshold) / float64(time.Millisecond)
	var slot chan struct{}
	if *slots > 0 {
		slot = make(chan struct{}, *slots)
	}

	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/" {
			http.NotFound(w, r)
			return
		}
		start := time.Now()
		if times.get() >= limit {
			if resetting.CompareAndSwap(false, true) {
				go func() {
					time.Sleep(*cooldown)
					times.reset()
					resetting.Store(false)
				}()
			}
			http.Error(w, "unhealthy", http.StatusServiceUnavailable)
			return
		}
		if slot != nil {
			slot <- struct{}{}
			defer func() { <-slot }()
		}
		if takes := time.Duration(takes.Load()); takes > 0 {
			time.Sleep(takes)
		}
		fmt.Fprintf(w, "Average request time: %f (ms)\n", times.get())
		// The time includes the wait for a slot: all that the handler of this pattern can see.
		times.add(float64(time.Since(start)) / float64(time.Millisecond))
	})
	http.HandleFunc("/health", func(w http.ResponseWriter, _ *http.Request) {
		if times.get() >= limit {
			http.Error(w, "unhealthy", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "healthy")
	})
	// For the bench, which makes the service sick and well again: /work?takes=2s.
	http.HandleFunc("/work", func(w http.ResponseWriter, r *http.Request) {
		duration, err := time.ParseDuration(r.URL.Query().Get("takes"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		takes.Store(int64(duration))
		fmt.Fprintln(w, duration)
	})
	log.Fatal(http.ListenAndServe(*addr, nil))
}
