"""Deadlines, repeats and errors of single operations."""

from collections.abc import Callable
from typing import Any

from pymongo.errors import (
    AutoReconnect,
    ConfigurationError,
    DuplicateKeyError,
    NotPrimaryError,
    OperationFailure,
    WriteConcernError,
)
from pymongo.helpers_shared import _NOT_PRIMARY_CODES, _RETRYABLE_ERROR_CODES
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from fr_twisted.store.interfaces import StoreError, StoreFullError
from fr_twisted.store.retry import Runner, ServerError, passes


class RunnerTests(SynchronousTestCase):
    """`Runner`."""

    def setUp(self) -> None:
        """Make a runner with a deadline of 10 s."""
        self.clock = Clock()
        self.runner = Runner(self.clock, "mongodb://h:1/fr", 10.0)
        self.attempts = 0

    def run_it(self, *results: object, timeout: float | None = None) -> Deferred[Any]:
        """Run an operation whose attempts end so, the last for ever."""

        def attempt() -> Deferred[Any]:
            result = results[min(self.attempts, len(results) - 1)]
            self.attempts += 1
            if isinstance(result, Exception):
                return fail(result)
            return result if isinstance(result, Deferred) else succeed(result)

        return Deferred.fromCoroutine(self.runner.run("do it", attempt, timeout))

    def refused(self, deferred: Deferred[Any], kind: type[Exception]) -> str:
        """Return the message of a failure; nothing is left to be done."""
        failure = self.failureResultOf(deferred, kind)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        return str(failure.value)

    def test_success(self) -> None:
        """What works at once is not repeated, and leaves no timer."""
        self.assertEqual(self.successResultOf(self.run_it(5)), 5)
        self.assertEqual((self.attempts, self.clock.getDelayedCalls()), (1, []))

    def test_passingCauses(self) -> None:
        """Causes that pass are waited out, a little longer each time."""
        causes = (
            AutoReconnect("lost"),
            NotPrimaryError("x"),
            OperationFailure("x", 11600, {"errmsg": "x"}),
            WriteConcernError("x", 64, {"errmsg": "x"}),
            OperationFailure("x", 999, {"errorLabels": ["RetryableWriteError"]}),
        )
        done = self.run_it(*causes, "done")
        times: list[float] = []
        while self.attempts <= len(causes):
            times.append(self.clock.seconds())
            self.clock.advance(self.clock.getDelayedCalls()[0].getTime() - self.clock.seconds())
        self.assertEqual(self.successResultOf(done), "done")
        self.assertLess(self.clock.seconds(), 2.0)
        pauses = [
            later - sooner for sooner, later in zip(times, [*times[1:], self.clock.seconds()], strict=True)
        ]
        for n, pause in enumerate(pauses):
            self.assertTrue(0.025 * 2**n <= pause <= 0.05 * 2**n, pauses)

    def test_codes(self) -> None:
        """What a driver would repeat is repeated, and what a busy or failing-over server says; a full disk is not."""
        for code in (*_RETRYABLE_ERROR_CODES, *_NOT_PRIMARY_CODES, 64, 112, 133, 365, 462):
            self.assertTrue(passes(OperationFailure("x", code, {"errmsg": "x"})), code)
        self.assertTrue(passes(OperationFailure("x", 999, {"errorLabels": ["RetryableError"]})))
        for code in (1, 2, 13, 18, 26, 100, 8000, 11000, 14031):
            self.assertFalse(passes(OperationFailure("x", code, {"errmsg": "x"})), code)

    def test_full(self) -> None:
        """A full disk is told at once as that, in the server's words."""
        error = OperationFailure("x", 14031, {"errmsg": "available disk space is 3 bytes"})
        message = self.refused(self.run_it(error), StoreFullError)
        self.assertEqual(message, "do it: the store is full: available disk space is 3 bytes (code 14031)")

    def test_noPrimary(self) -> None:
        """That there is no primary is told as that."""
        done = self.run_it(NotPrimaryError("x"), timeout=1.0)
        self.clock.pump([0.01] * 200)
        self.assertIn("do it: the store has no primary", self.refused(done, StoreError))

    def test_causesThatStay(self) -> None:
        """At the deadline the last cause is told; a pause that would end after it is not begun."""
        done = self.run_it(AutoReconnect("lost"), timeout=3.0)
        for _ in range(300):
            self.clock.advance(0.01)
        self.assertIn("do it: the connection to the store was lost", self.refused(done, StoreError))
        self.assertTrue(4 <= self.attempts <= 12, self.attempts)

    def test_noAnswer(self) -> None:
        """An operation without an answer is cancelled at its deadline, and the store is named."""
        cancelled: list[object] = []
        done = self.run_it(Deferred(cancelled.append))
        self.clock.advance(9.9)
        self.assertNoResult(done)
        self.clock.advance(0.2)
        self.assertEqual(self.refused(done, StoreError), "do it: no answer from mongodb://h:1/fr within 10 s")
        self.assertEqual(len(cancelled), 1)

    def test_deadlineHoldsForAllAttempts(self) -> None:
        """The deadline counts from the first attempt."""
        done = self.run_it(AutoReconnect("lost"), Deferred())
        self.clock.advance(1.0)
        self.assertEqual(self.attempts, 2)
        self.clock.advance(9.1)
        self.refused(done, StoreError)

    def test_refusal(self) -> None:
        """An error that will not pass ends the operation at once, in the server's words, shortened, with the code."""
        error = OperationFailure("command {patient: Doe} failed", 2, {"errmsg": "bad value" + "x" * 1000})
        message = self.refused(self.run_it(error), ServerError)
        self.assertIn("do it: the store refused: bad value", message)
        self.assertIn("(code 2)", message)
        self.assertNotIn("Doe", message)
        self.assertLess(len(message), 300)

    def test_unsatisfiableWriteConcern(self) -> None:
        """A write concern that no waiting can satisfy is not waited for."""
        self.refused(self.run_it(WriteConcernError("x", 100, {"errmsg": "x"})), ServerError)

    def test_duplicateKey(self) -> None:
        """A duplicate key goes to the caller as it is."""
        self.refused(self.run_it(DuplicateKeyError("x", 11000)), DuplicateKeyError)

    def test_tooLarge(self) -> None:
        """A document that is too large, or holds what cannot be encoded, is the caller's error."""
        self.refused(self.run_it(OperationFailure("x", 10334, {"errmsg": "x"})), ValueError)
        self.attempts = 0
        self.refused(self.run_it(OverflowError("x")), ValueError)

    def test_otherErrors(self) -> None:
        """No other error of pymongo gets out either, but programming errors do."""
        self.refused(self.run_it(ConfigurationError("x")), StoreError)
        self.attempts = 0
        self.refused(self.run_it(ZeroDivisionError()), ZeroDivisionError)

    def test_close(self) -> None:
        """Closing ends what is under way, in an attempt or a pause between two, and refuses what comes after."""
        in_attempt = self.run_it(Deferred())
        self.attempts = 0
        in_pause = self.run_it(AutoReconnect("lost"))
        self.runner.close()
        for waiting in (in_attempt, in_pause):
            self.assertIn("closed", self.refused(waiting, StoreError))
        self.assertIn("closed", self.refused(self.run_it(1), StoreError))

    def test_cancelledByTheCaller(self) -> None:
        """A caller may cancel; the attempt is cancelled with it."""
        cancelled: list[object] = []
        done = self.run_it(Deferred(cancelled.append))
        done.cancel()
        self.failureResultOf(done)
        self.assertEqual((len(cancelled), self.clock.getDelayedCalls()), (1, []))

    def test_wait(self) -> None:
        """A wait of our own has no deadline, and is ended by `close` or its caller."""
        gate: Deferred[int] = Deferred()
        waiting = Deferred.fromCoroutine(self.runner.wait("wait", lambda: gate))
        never: list[Deferred[int]] = [Deferred(), Deferred()]
        cancelled = Deferred.fromCoroutine(self.runner.wait("wait", lambda: never[0]))
        closed = Deferred.fromCoroutine(self.runner.wait("wait", lambda: never[1]))
        self.clock.advance(1e6)
        self.assertNoResult(waiting)
        gate.callback(5)
        self.assertEqual(self.successResultOf(waiting), 5)
        cancelled.cancel()
        self.failureResultOf(cancelled)
        self.assertNoResult(closed)
        self.runner.close()
        self.assertIn("closed", self.refused(closed, StoreError))

    def test_once(self) -> None:
        """What must not be repeated is not, but has a deadline and our errors."""
        once: Callable[[Any], Deferred[Any]] = lambda result: Deferred.fromCoroutine(  # noqa: E731
            self.runner.once("do it", lambda: result, 1.0)
        )
        self.assertEqual(self.successResultOf(once(succeed(3))), 3)
        self.refused(once(fail(AutoReconnect("lost"))), StoreError)
        waiting = once(Deferred())
        self.clock.advance(1.1)
        self.refused(waiting, StoreError)
