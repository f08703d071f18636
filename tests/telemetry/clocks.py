"""Two clocks that a test turns by hand."""

from dataclasses import dataclass

from ai_lab.telemetry.operations.service import Operations


@dataclass
class Clocks:
    """A wall clock, in seconds since 1970, and a monotonic one."""

    wall: float = 1_800_000_000.0
    monotonic: float = 5_000.0

    def pass_by(self, seconds: float) -> None:
        """Let time pass."""
        self.wall += seconds
        self.monotonic += seconds

    def set_wall(self, by_seconds: float) -> None:
        """Set the wall clock, as an operator or NTP does; a machine that slept looks the same."""
        self.wall += by_seconds

    def operations(self, *, most_waiting: int = 360) -> Operations:
        """Return operations that live by these clocks."""
        return Operations(most_waiting=most_waiting, clock=lambda: self.wall, monotonic=lambda: self.monotonic)
