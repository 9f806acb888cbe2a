"""Time spent on a training, over all resumes, and how fast its steps are."""

import contextlib
import time
from collections.abc import Iterator


class Clock:
    """Counts from its making on; `seconds` and `cpu_seconds` are what earlier calls had spent."""

    def __init__(self, seconds: float, cpu_seconds: float) -> None:
        self._spent_before = seconds, cpu_seconds
        self._started = time.perf_counter(), time.process_time()
        self._aside = 0.0
        self._lap = (0.0, 0, 0.0)  # seconds of steps, images, seconds of waiting at the last `rates`

    def spent(self) -> tuple[float, float]:
        """Return the seconds on the clock and those of the processors (all threads of this process)."""
        return (
            self._spent_before[0] + time.perf_counter() - self._started[0],
            self._spent_before[1] + time.process_time() - self._started[1],
        )

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Leave out of `steps` what is done within: validation, saving."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._aside += time.perf_counter() - started

    @property
    def steps(self) -> float:
        """Seconds that the steps took."""
        return time.perf_counter() - self._started[0] - self._aside

    def rates(self, images: int, waiting: float) -> dict[str, float]:
        """Return images a second and the share of waiting since the last call, from what both have come to."""
        steps = self.steps
        took, seen, waited = (now - then for now, then in zip((steps, images, waiting), self._lap, strict=True))
        self._lap = steps, images, waiting
        return {"images_per_second": seen / took, "waiting": waited / took}
