"""Tests of the report bundle."""

import contextlib
import io
import tarfile

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fr_twisted import bundle
from fr_twisted.bundle import BundleError, pack, unpack

NAMES = st.builds(
    "{}.{}".format,
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", fullmatch=True),
    st.sampled_from(["json", "html", "png", "pdf", "dcm", "csv", "txt", "nii.gz"]),
)
FILES = st.dictionaries(NAMES, st.binary(max_size=2000), max_size=8)


def tar_of(*entries: tuple[tarfile.TarInfo, bytes], mode: str = "w") -> bytes:
    """Return an archive made by hand."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode, format=tarfile.PAX_FORMAT) as tar:  # type: ignore[call-overload]
        for info, content in entries:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def entry(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    """Return the head of an archive's entry."""
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = target
    return info


REPORT = (entry("report.json"), b"{}")


class BundleTests(SynchronousTestCase):
    """`pack` and `unpack`."""

    @settings(deadline=None, max_examples=40)
    @given(FILES, st.binary(max_size=100))
    def test_roundTrip(self, files: dict[str, bytes], report: bytes) -> None:
        """What is packed is unpacked again, whatever the files hold."""
        files["report.json"] = report
        self.assertEqual(unpack(pack(files)), files)

    def test_deterministic(self) -> None:
        """The same files give the same bytes, in whatever order they are named."""
        files = {"report.json": b"{}", "overlay.png": b"png", "report.html": b"<html>"}
        turned = dict(reversed(files.items()))
        self.assertEqual(pack(files), pack(turned))

    def test_needsReport(self) -> None:
        """A bundle without report.json is neither packed nor unpacked."""
        with self.assertRaisesRegex(BundleError, "report.json is missing"):
            pack({"overlay.png": b""})
        with self.assertRaisesRegex(BundleError, "report.json is missing"):
            unpack(tar_of((entry("overlay.png"), b"")))

    def test_badNames(self) -> None:
        """Names that lead out of a folder, are hidden, of another kind, or hide a line feed are refused both ways."""
        for name in (
            "../x.json",
            "/x.json",
            "a/b.json",
            ".x.json",
            "x.exe",
            "x.gz",
            "x.nii",
            "x",
            "",
            "x.json\n",
            "ä.json",
            "-x.json",
        ):
            with self.assertRaises(BundleError, msg=name):
                pack({"report.json": b"", name: b""})
            if name:
                with self.assertRaises(BundleError, msg=name):
                    unpack(tar_of(REPORT, (entry(name), b"")))

    def test_noLinksOrDevices(self) -> None:
        """Links, folders, devices and pipes in an archive are refused, though they have harmless names."""
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
            with self.assertRaises(BundleError, msg=str(kind)):
                unpack(tar_of(REPORT, (entry("overlay.png", kind, "report.json"), b"")))

    def test_noSparseFiles(self) -> None:
        """A sparse file, which grows to whatever size it names, is refused before it is read."""
        sparse = entry("a.txt")
        body = b"1\n0\n1\n".ljust(512, b"\0") + b"x"
        sparse.pax_headers = {
            "GNU.sparse.major": "1",
            "GNU.sparse.minor": "0",
            "GNU.sparse.name": "a.txt",
            "GNU.sparse.realsize": str(1 << 40),
        }
        with self.assertRaisesRegex(BundleError, "no report file"):
            unpack(tar_of(REPORT, (sparse, body)))

    def test_duplicateNames(self) -> None:
        """A name that stands twice in an archive is refused."""
        with self.assertRaises(BundleError):
            unpack(tar_of(REPORT, REPORT))

    def test_tooManyFiles(self) -> None:
        """An archive of more files than a report can have is refused."""
        many = [(entry(f"f{n}.txt"), b"") for n in range(bundle.MAX_FILES)]
        self.assertEqual(len(unpack(tar_of(REPORT, *many[:-1]))), bundle.MAX_FILES)
        with self.assertRaises(BundleError):
            unpack(tar_of(REPORT, *many))

    def test_tooLarge(self) -> None:
        """More bytes than the limit are refused before they are read."""
        self.patch(bundle, "MAX_BUNDLE", 100)
        with self.assertRaisesRegex(BundleError, "over the limit of 100"):
            unpack(bytes(101))

    def test_compressed(self) -> None:
        """A compressed archive, which could grow without bound, is refused."""
        with self.assertRaises(BundleError):
            unpack(tar_of(REPORT, mode="w:gz"))

    @settings(deadline=None, max_examples=150)
    @given(st.binary(max_size=3000))
    def test_garbage(self, data: bytes) -> None:
        """Any bytes are a bundle or raise a BundleError."""
        try:
            unpack(data)
        except BundleError:
            return

    @settings(deadline=None, max_examples=150)
    @given(st.integers(0, 2047), st.integers(0, 255))
    def test_damaged(self, place: int, value: int) -> None:
        """A bundle with one byte changed is a bundle still or raises a BundleError."""
        data = bytearray(pack({"report.json": b"{}" * 50, "a.txt": b"x"}))
        data[place] = value
        try:
            files = unpack(bytes(data))
        except BundleError:
            return
        self.assertIn("report.json", files)

    def test_truncated(self) -> None:
        """A bundle cut anywhere inside its files is refused, or is still whole."""
        files = {"report.json": b"{}" * 600, "a.txt": b"x" * 700}
        data = pack(files)
        for end in range(0, len(data), 128):
            with contextlib.suppress(BundleError):
                self.assertLessEqual(unpack(data[:end]).items(), files.items())
