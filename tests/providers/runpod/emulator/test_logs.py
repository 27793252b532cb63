from __future__ import annotations

import re
from datetime import UTC, datetime

import httpx
import pytest

from gpubroker_runpod.emulator import RunPodEmulator

from .account import Account, Event, container, eventually

THREE = container("echo one; echo two >&2; echo three; sleep 1000")


def lines(found: list[Event]) -> list[str]:
    """What some events tell."""
    return [event.line for event in found]


class TestTheStream:
    def test_is_of_events_with_a_moment_and_a_number(self, account: Account) -> None:
        """Both outputs are one source; ids grow."""
        pod = account.rent(args=THREE)

        found = account.read_until(pod, "three")

        assert lines(found) == ["one", "two", "three"]
        assert all(event.data["source"] == "container" for event in found)
        assert all(
            re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ/\d{12}", event.id) for event in found
        )
        assert all(event.data["ts"] == event.id.partition("/")[0] for event in found)
        assert [event.id for event in found] == sorted(event.id for event in found)

    def test_has_the_headers_of_its_kind(self, account: Account) -> None:
        """No cache, no buffer, no length."""
        pod = account.rent(args=THREE)

        with account.http.stream("GET", f"/v2/pods/{pod}/logs") as answer:
            headers = answer.headers

        assert headers["content-type"] == "text/event-stream"
        assert (headers["cache-control"], headers["x-accel-buffering"]) == ("no-cache", "no")
        assert "ratelimit" in headers

    def test_begins_with_the_last_lines_and_goes_on(
        self, account: Account, cloud: RunPodEmulator
    ) -> None:
        """What is printed comes while it is printed."""
        pod = account.rent(args=THREE)
        account.read_until(pod, "three")

        with account.logs(pod, source="container", tail=1) as stream:
            first = next(stream)
            cloud.afflict(pod, "says", source="container", line="four")
            second = next(stream)

        assert lines([first, second]) == ["three", "four"]

    def test_may_begin_with_nothing(self, account: Account, cloud: RunPodEmulator) -> None:
        """Only what comes from now on."""
        pod = account.rent(args=THREE)
        account.read_until(pod, "three")

        with account.logs(pod, source="container", tail=0) as stream:
            # Sent before the reader is there, this would not be read.
            cloud.afflict(pod, "says", source="container", line="four")
            assert next(stream).line == "four"

    def test_goes_on_after_an_event(self, account: Account) -> None:
        """Named by its id, whatever is said of a tail; or by a moment."""
        pod = account.rent(args=THREE)
        found = account.read_until(pod, "three")

        with account.logs(pod, after=found[0].id, source="container", tail=0) as stream:
            assert next(stream).line == "two"
        with account.logs(pod, source="container", tail=0, since=found[0].data["ts"]) as stream:
            assert next(stream).line == "one"

    def test_is_of_both_sources_or_of_one(self, account: Account) -> None:
        """What the host says comes with what the container prints."""
        pod = account.rent(args=THREE)
        account.read_until(pod, "three")

        with account.logs(pod) as stream:
            both = {next(stream).data["source"] for _ in range(9)}
        with account.logs(pod, source="system") as stream:
            system = [next(stream) for _ in range(6)]

        assert both == {"container", "system"}
        assert lines(system)[0] == "create container ubuntu:24.04"
        assert lines(system)[-1] == "start container"

    def test_never_ends_by_itself_but_says_that_it_lives(
        self, account: Account, cloud: RunPodEmulator
    ) -> None:
        """With comments, if these are on."""
        cloud.switch(heartbeat=0.02)
        pod = account.rent(args=THREE)
        account.read_until(pod, "three")

        with account.http.stream("GET", f"/v2/pods/{pod}/logs?tail=0") as answer:
            pieces = answer.iter_raw()
            assert [next(pieces) for _ in range(2)] == [b": keep-alive\n\n"] * 2

    def test_ends_with_the_pod(self, account: Account) -> None:
        """And is not found any more."""
        pod = account.rent(args=THREE)

        with account.logs(pod, source="container") as stream:
            next(stream)
            account.http.delete(f"/v2/pods/{pod}")
            rest = list(stream)

        assert lines(rest) in ([], ["two"], ["two", "three"])
        assert account.http.get(f"/v2/pods/{pod}/logs").status_code == 404

    def test_goes_on_when_the_container_is_started_again(self, account: Account) -> None:
        """Numbers too."""
        pod = account.rent(args=container("echo begin; sleep 0.02"))

        with account.logs(pod, source="container") as stream:
            first, second = next(stream), next(stream)

        assert (first.line, second.line) == ("begin", "begin")
        assert first.id.partition("/")[2] < second.id.partition("/")[2]

    def test_splits_long_lines_and_carries_any_bytes(
        self, account: Account, cloud: RunPodEmulator
    ) -> None:
        """What is no text is replaced; a last line without its end comes with the end."""
        cloud.switch(line_limit=10)
        script = "printf '0123456789abc\\n\\377\\303\\244\\302\\205x\\n\\nend'; sleep 0.02"

        pod = account.rent(args=container(script))

        found = lines(account.read_until(pod, "end"))
        assert found == ["0123456789", "abc", "\ufffd\u00e4\u0085x", "", "end"]

    def test_does_not_hinder_the_end_of_the_emulator(self) -> None:
        """Whoever reads finds the connection cut."""
        with RunPodEmulator(seed=1, boot=0.01, scheduling=0.01) as cloud:
            http = httpx.Client(
                base_url=cloud.url,
                headers={"Authorization": f"Bearer {cloud.key}", "User-Agent": "me"},
                trust_env=False,
            )
            pod = Account(cloud, http).rent(args=THREE)
            with Account(cloud, http).logs(pod) as stream:
                next(stream)
                cloud.stop()
                with pytest.raises(httpx.TransportError):
                    list(stream)
            http.close()

    @pytest.mark.parametrize(
        "query", [{"source": "kernel"}, {"tail": "5001"}, {"tail": "-1"}, {"since": "yesterday"}]
    )
    def test_refuses_what_is_no_value(self, account: Account, query: dict[str, str]) -> None:
        """422."""
        pod = account.order()

        assert account.http.get(f"/v2/pods/{pod}/logs", params=query).status_code == 422


class TestFaults:
    @pytest.fixture
    def pod(self, account: Account) -> str:
        """A pod that has printed three lines."""
        pod = account.rent(args=THREE)
        account.read_until(pod, "three")
        return pod

    def test_cut_a_stream_in_the_middle_of_an_event(
        self, account: Account, cloud: RunPodEmulator, pod: str
    ) -> None:
        """The event comes whole to one who goes on."""
        cloud.faults.add("logs", "logs-cut", events=1)

        with account.logs(pod, source="container") as stream:
            first = next(stream)
            with pytest.raises(httpx.RemoteProtocolError):
                list(stream)

        with account.logs(pod, after=first.id, source="container") as stream:
            assert next(stream).line == "two"

    def test_end_a_stream_as_if_all_were_well(
        self, account: Account, cloud: RunPodEmulator, pod: str
    ) -> None:
        """In the middle of the log."""
        cloud.faults.add("logs", "logs-end", events=2)

        with account.logs(pod, source="container") as stream:
            assert lines(list(stream)) == ["one", "two"]

    def test_leave_a_stream_open_in_silence(
        self, account: Account, cloud: RunPodEmulator, pod: str
    ) -> None:
        """Without so much as a comment."""
        cloud.switch(heartbeat=0.01)
        cloud.faults.add("logs", "logs-stall", events=1)

        account.http.timeout = 0.2
        with account.logs(pod, source="container") as stream:
            assert next(stream).line == "one"
            with pytest.raises(httpx.ReadTimeout):
                next(stream)

    def test_lose_lines(self, account: Account, cloud: RunPodEmulator, pod: str) -> None:
        """Here and there."""
        cloud.faults.add("logs", "logs-lose", every=2)

        with account.logs(pod, source="container") as stream:
            assert lines([next(stream), next(stream)]) == ["one", "three"]

    def test_repeat_what_was_seen(self, account: Account, cloud: RunPodEmulator, pod: str) -> None:
        """To one who goes on after it."""
        first = account.read_until(pod, "one")[0]
        cloud.faults.add("logs", "logs-again")

        with account.logs(pod, after=first.id, source="container") as stream:
            assert next(stream) == first

    def test_meet_one_request_alone(
        self, account: Account, cloud: RunPodEmulator, pod: str
    ) -> None:
        """The nth, of one pod."""
        cloud.faults.add("logs", "status", status=500, nth=2, parameters={"id": pod})

        statuses: list[int] = []
        for _ in range(3):
            with account.http.stream("GET", f"/v2/pods/{pod}/logs") as answer:
                statuses.append(answer.status_code)

        assert statuses == [200, 500, 200]


def test_readers_that_leave_are_forgotten(account: Account, cloud: RunPodEmulator) -> None:
    """Nothing of a stream is left when its reader has gone."""
    pod = account.rent(args=THREE)
    waiting = cloud.inside.world.lives.pods[pod].log
    for _ in range(3):
        account.read_until(pod, "three")

    eventually(lambda: not waiting.readers)


def test_moments_are_of_now(account: Account) -> None:
    """In UTC."""
    pod = account.rent(args=THREE)

    stamp = account.read_until(pod, "one")[0].data["ts"]

    age = datetime.now(UTC) - datetime.fromisoformat(stamp)
    assert abs(age.total_seconds()) < 10
