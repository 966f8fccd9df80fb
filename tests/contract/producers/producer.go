// A trader in Go, written from docs/protocol.md alone, with nothing but the standard library.
//
//	producer SOCKET FIRST_LINES LINES
//
// It sends hello and the first lines, then says "ready" on stdout and waits for a line on stdin. While it waits the
// test kills the relay and starts it again. After that it sends the other lines (with a lost frame in the middle) and
// bye, says "done" when everything is acked, and ends. Whenever its connection ends it makes another and sends again
// what was not acked.
package main

import (
	"bufio"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"strconv"
	"sync"
	"time"
)

const retry = 50 * time.Millisecond

var levels = []string{"debug", "info", "warning", "error", "critical"}

// --- msgpack: as much of it as a trader needs; every length in its widest form ---

func packUint(to []byte, value uint64) []byte {
	return binary.BigEndian.AppendUint64(append(to, 0xcf), value)
}

func packInt(to []byte, value int64) []byte {
	return binary.BigEndian.AppendUint64(append(to, 0xd3), uint64(value))
}

func packFloat(to []byte, value float64) []byte {
	return binary.BigEndian.AppendUint64(append(to, 0xcb), math.Float64bits(value))
}

func packSized(to []byte, code byte, size int) []byte {
	return binary.BigEndian.AppendUint32(append(to, code), uint32(size))
}

func packText(to []byte, text string) []byte {
	return append(packSized(to, 0xdb, len(text)), text...)
}

func packBytes(to []byte, data []byte) []byte {
	return append(packSized(to, 0xc6, len(data)), data...)
}

func packArray(to []byte, size int) []byte { return packSized(to, 0xdd, size) }

func packMap(to []byte, size int) []byte { return packSized(to, 0xdf, size) }

// readValue reads an integer, a text, an array or a map; what the relay sends has nothing else.
func readValue(from *bufio.Reader) (any, error) {
	code, err := from.ReadByte()
	if err != nil {
		return nil, err
	}
	number := func(size int) (uint64, error) {
		raw := make([]byte, 8)
		_, err := io.ReadFull(from, raw[8-size:])
		return binary.BigEndian.Uint64(raw), err
	}
	text := func(size uint64, err error) (any, error) {
		if err != nil {
			return nil, err
		}
		raw := make([]byte, size)
		_, err = io.ReadFull(from, raw)
		return string(raw), err
	}
	switch {
	case code < 0x80:
		return uint64(code), nil
	case code >= 0xcc && code <= 0xcf:
		return number(1 << (code - 0xcc))
	case code&0xe0 == 0xa0:
		return text(uint64(code&0x1f), nil)
	case code >= 0xd9 && code <= 0xdb:
		return text(number(1 << (code - 0xd9)))
	case code&0xf0 == 0x90:
		items := []any{}
		for left := int(code & 0x0f); left > 0; left-- {
			item, err := readValue(from)
			if err != nil {
				return nil, err
			}
			items = append(items, item)
		}
		return items, nil
	case code&0xf0 == 0x80:
		entries := map[string]any{}
		for left := int(code & 0x0f); left > 0; left-- {
			key, err := readValue(from)
			if err != nil {
				return nil, err
			}
			value, err := readValue(from)
			if err != nil {
				return nil, err
			}
			entries[fmt.Sprint(key)] = value
		}
		return entries, nil
	}
	return nil, fmt.Errorf("the relay sent a 0x%x", code)
}

// --- the trader ---

type line struct {
	last  uint64
	frame []byte
}

type trader struct {
	lock    sync.Mutex
	path    string
	hello   []byte
	unacked []line
	acked   uint64
	seq     uint64
	ended   bool
	link    net.Conn
}

// send is called with the lock held; an error shows on the reading side too.
func (t *trader) send(data []byte) {
	if t.link != nil {
		t.link.Write(data)
	}
}

func (t *trader) add(frame []byte) {
	t.unacked = append(t.unacked, line{t.seq, frame})
	t.send(frame)
}

func (t *trader) log(level string, n int) {
	t.seq++
	frame := packUint(packUint(packArray(nil, 5), 1), t.seq)
	frame = packUint(frame, uint64(time.Now().UnixNano()))
	frame = packText(frame, level)
	frame = packText(packMap(frame, 7), "event")
	frame = packText(frame, fmt.Sprintf("line %d \u00e9\U0001F600", n))
	frame = packText(packText(frame, "logger"), "go.bot")
	frame = packInt(packText(frame, "n"), int64(n))
	frame = packFloat(packText(frame, "price"), 187.25)
	frame = packUint(packText(frame, "huge"), math.MaxInt64)
	frame = packBytes(packText(frame, "raw"), []byte{0, 255})
	frame = packMap(packArray(packText(frame, "legs"), 2), 1)
	frame = append(packInt(packText(frame, "qty"), -70_000), 0xc0)
	t.add(frame)
}

func (t *trader) lost(count uint64, cause string) {
	first := t.seq + 1
	t.seq += count
	frame := packUint(packUint(packArray(nil, 5), 2), first)
	t.add(packText(packUint(packUint(frame, t.seq), count), cause))
}

func (t *trader) bye() []byte {
	return packUint(packUint(packArray(nil, 2), 3), t.seq)
}

func (t *trader) logTo(last int) {
	t.lock.Lock()
	defer t.lock.Unlock()
	for int(t.seq) < last {
		n := int(t.seq) + 1
		t.log(levels[n%len(levels)], n)
	}
}

func (t *trader) onAcked(upTo uint64) {
	t.lock.Lock()
	defer t.lock.Unlock()
	if upTo > t.acked {
		t.acked = upTo
	}
	for len(t.unacked) > 0 && t.unacked[0].last <= t.acked {
		t.unacked = t.unacked[1:]
	}
	if t.ended && t.acked >= t.seq {
		fmt.Println("done")
		os.Exit(0)
	}
}

func (t *trader) serve(link net.Conn) error {
	t.lock.Lock()
	data := append([]byte{}, t.hello...)
	for _, line := range t.unacked {
		data = append(data, line.frame...)
	}
	if t.ended {
		data = append(data, t.bye()...)
	}
	t.link = link
	t.send(data)
	t.lock.Unlock()
	from := bufio.NewReader(link)
	for {
		value, err := readValue(from)
		if err != nil {
			return err
		}
		frame := value.([]any)
		switch frame[0].(uint64) {
		case 0:
			t.onAcked(frame[1].(map[string]any)["acked"].(uint64))
		case 1:
			t.onAcked(frame[1].(uint64))
		default:
			fmt.Fprintln(os.Stderr, "the relay does not want this:", frame)
			os.Exit(1)
		}
	}
}

func (t *trader) run() {
	for {
		if link, err := net.Dial("unix", t.path); err == nil {
			t.serve(link)
			t.lock.Lock()
			t.link = nil
			t.lock.Unlock()
			link.Close()
		}
		time.Sleep(retry)
	}
}

func main() {
	firstLines, _ := strconv.Atoi(os.Args[2])
	lines, _ := strconv.Atoi(os.Args[3])
	key := make([]byte, 16)
	rand.Read(key)
	host, _ := os.Hostname()
	hello := packMap(packUint(packArray(nil, 2), 0), 6)
	hello = packUint(packText(hello, "protocol"), 1)
	hello = packBytes(packText(hello, "run"), key)
	hello = packText(packText(hello, "app"), "go_bot")
	hello = packText(packText(hello, "host"), host)
	hello = packUint(packText(hello, "pid"), uint64(os.Getpid()))
	hello = packUint(packText(hello, "started_ns"), uint64(time.Now().UnixNano()))
	t := &trader{path: os.Args[1], hello: hello}
	go t.run()
	t.logTo(firstLines)
	fmt.Println("ready")
	bufio.NewReader(os.Stdin).ReadString('\n')
	t.logTo(firstLines + 10)
	t.lock.Lock()
	t.lost(5, "overflow")
	t.lock.Unlock()
	t.logTo(lines)
	t.lock.Lock()
	t.ended = true
	t.send(t.bye())
	t.lock.Unlock()
	select {}
}
