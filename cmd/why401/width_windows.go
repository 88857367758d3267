package main

import (
	"os"
	"syscall"
	"unsafe"
)

var consoleInfo = syscall.NewLazyDLL("kernel32.dll").NewProc("GetConsoleScreenBufferInfo")

// terminalWidth returns how many columns the window of a console has; 0 if f is none.
func terminalWidth(f *os.File) int {
	raw, err := f.SyscallConn()
	if err != nil {
		return 0
	}
	type coord struct{ x, y int16 }
	var info struct { // CONSOLE_SCREEN_BUFFER_INFO
		size, cursor             coord
		attributes               uint16
		left, top, right, bottom int16 // of the window
		largest                  coord
	}
	var ok uintptr
	if err := raw.Control(func(fd uintptr) { ok, _, _ = consoleInfo.Call(fd, uintptr(unsafe.Pointer(&info))) }); err != nil || ok == 0 {
		return 0
	}
	return int(info.right) - int(info.left) + 1
}
