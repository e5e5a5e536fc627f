"""An editor as debugpy sees it: one that speaks the debug adapter protocol and follows children."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from tests.contract.programs import Program


class Stop(NamedTuple):
    """A process that a debugger has stopped."""

    reason: str
    function: str
    value: str
    pid: int


class Editor:
    """Launches a program in a debugger and writes down where its processes stop, then go on."""

    def __init__(self, script: Path, line: int, expression: str) -> None:
        self.script, self.line, self.expression = script, line, expression
        self.stops: list[Stop] = []
        self.printed = ""
        self._selector = selectors.DefaultSelector()

    def launch(self, limit: float, **what: Any) -> None:
        """Run to the end of the program and of all its conversations."""
        command = [sys.executable, "-m", "debugpy.adapter"]
        adapter = Program(command, stdin=subprocess.PIPE, cwd=self.script.parent)
        streams = adapter.process.stdin, adapter.process.stdout
        assert streams[0]
        assert streams[1]
        launched = {"console": "internalConsole", "cwd": str(self.script.parent), **what}
        try:
            self._begin(_Stream(streams[1].fileno(), streams[0].fileno()), "launch", launched)
            deadline = time.monotonic() + limit
            while self._selector.get_map():
                ready = self._selector.select(deadline - time.monotonic())
                assert ready, f"silent for {limit} s; {self.stops}; {self.printed}"
                for key, _ in ready:
                    key.data.read()
            streams[0].close()  # an editor that is closed
            adapter.leaves_nothing()
        finally:
            adapter.end()
            adapter.close()
            for key in list(self._selector.get_map().values()):
                self.end(key.data)
            self._selector.close()

    def attach(self, configuration: dict[str, Any]) -> None:
        """Talk to a child that the debugger has told of."""
        where = configuration["connect"]
        door = socket.create_connection((where["host"], where["port"]))
        self._begin(_Stream(door.fileno(), door.fileno(), door), "attach", configuration)

    def _begin(self, stream: _Stream, kind: str, arguments: dict[str, Any]) -> None:
        conversation = _Conversation(self, stream, kind, arguments)
        self._selector.register(stream.reading, selectors.EVENT_READ, conversation)

    def end(self, conversation: _Conversation) -> None:
        """Nothing more comes from there."""
        self._selector.unregister(conversation.stream.reading)
        if conversation.stream.door:
            conversation.stream.door.close()


class _Stream(NamedTuple):
    reading: int
    writing: int
    door: socket.socket | None = None


class _Conversation:
    """With the debugger of one process."""

    def __init__(self, editor: Editor, stream: _Stream, kind: str, config: dict[str, Any]) -> None:
        self._editor, self.stream, self._kind, self._config = editor, stream, kind, config
        self._asked = 0
        self._rest = b""
        self._stop: dict[str, Any] = {}
        self._pid = 0
        self._say("initialize", {"adapterID": "python", "pathFormat": "path"})

    def _say(self, command: str, arguments: dict[str, Any]) -> None:
        self._asked += 1
        body = {"seq": self._asked, "type": "request", "command": command, "arguments": arguments}
        text = json.dumps(body).encode()
        os.write(self.stream.writing, b"Content-Length: %d\r\n\r\n%s" % (len(text), text))

    def read(self) -> None:
        """Take what has come."""
        chunk = b""
        with contextlib.suppress(ConnectionResetError):
            chunk = os.read(self.stream.reading, 65536)
        self._rest += chunk
        while b"\r\n\r\n" in self._rest:
            head, _, rest = self._rest.partition(b"\r\n\r\n")
            size = int(head.partition(b":")[2])
            if len(rest) < size:
                break
            self._rest = rest[size:]
            message = json.loads(rest[:size])
            if message["type"] == "response" and not message["success"]:
                raise AssertionError(f"{message}; {self._editor.printed}")
            name = message.get("event") or message.get("command")
            body = message.get("body") or {}
            if react := getattr(self, f"_{message['type']}_{name}", None):
                react(body)
        if not chunk:
            self._editor.end(self)

    def _response_initialize(self, _: dict[str, Any]) -> None:
        self._say(self._kind, self._config)

    def _event_initialized(self, _: dict[str, Any]) -> None:
        marks = [{"line": self._editor.line}]
        source = {"path": str(self._editor.script)}
        self._say("setBreakpoints", {"source": source, "breakpoints": marks})
        self._say("configurationDone", {})

    def _event_process(self, body: dict[str, Any]) -> None:
        self._pid = body["systemProcessId"]

    def _event_output(self, body: dict[str, Any]) -> None:
        if body.get("category") in ("stdout", "stderr"):
            self._editor.printed += body["output"]

    def _event_debugpyAttach(self, body: dict[str, Any]) -> None:
        self._editor.attach(body)

    def _event_stopped(self, body: dict[str, Any]) -> None:
        self._stop = body
        self._say("stackTrace", {"threadId": body["threadId"]})

    def _response_stackTrace(self, body: dict[str, Any]) -> None:
        frame = body["stackFrames"][0]
        self._stop["function"] = frame["name"]
        self._say("evaluate", {"expression": self._editor.expression, "frameId": frame["id"]})

    def _response_evaluate(self, body: dict[str, Any]) -> None:
        stop = Stop(self._stop["reason"], self._stop["function"], body["result"], self._pid)
        self._editor.stops.append(stop)
        self._say("continue", {"threadId": self._stop["threadId"]})

    def _event_terminated(self, _: dict[str, Any]) -> None:
        self._say("disconnect", {})

    def _response_disconnect(self, _: dict[str, Any]) -> None:
        self._editor.end(self)
