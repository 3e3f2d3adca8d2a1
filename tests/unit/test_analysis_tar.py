"""Reading archives: whole and plain, or refused; nothing is written, and no size that is claimed is believed."""

import gzip
import io
import tarfile

from tests.builders import dicom_tar
from tests.odd_files import AFFINE, VOLUME, entry, series, tar_of, with_size
from tests.reading import SeriesTestCase

FILES = series()
ARCHIVE = dicom_tar(FILES)
PLAIN = [(entry(f"{number}.dcm"), data) for number, data in enumerate(FILES)]

with tarfile.open(fileobj=io.BytesIO(ARCHIVE)) as _tar:
    PLACES = [member.offset for member in _tar]
    END = 512 * (PLACES[-1] // 512 + 1 + -(-len(FILES[-1]) // 512))
"""Of the headers, and of the mark at the end."""


class ReadTests(SeriesTestCase):
    """Archives that are good."""

    def test_forms(self) -> None:
        """Long names in either form, odd names, folders and a global header make no difference."""
        long_names = [(entry("x" * 300 + header.name), data) for header, data in PLAIN]
        odd_names = [(entry("../\u00e4\udcff\\" + header.name), data) for header, data in PLAIN]
        for content in (
            tar_of(long_names, tarfile.PAX_FORMAT),
            tar_of(long_names, tarfile.GNU_FORMAT),
            tar_of(odd_names),
            tar_of([(entry("folder", tarfile.DIRTYPE), b""), *PLAIN]),
            tar_of([(entry("comment", tarfile.XGLTYPE), b"16 comment=hello\n"), *PLAIN]),
            ARCHIVE[: END + 512],
            ARCHIVE + b"what stands after the end" * 100,
        ):
            self.assert_same(self.read(content), VOLUME, AFFINE)


class RefusalTests(SeriesTestCase):
    """Archives that are not good."""

    def test_noArchive(self) -> None:
        """What is no archive is named as what it is."""
        for content, words in (
            (b"", "the archive is empty"),
            (dicom_tar([]), "no DICOM file"),
            (tar_of([(entry("folder", tarfile.DIRTYPE), b"")]), "no DICOM file"),
            (b"x" * 5000, "no tar archive"),
            (b"x", "no tar archive"),
            (gzip.compress(ARCHIVE), "compressed (gzip)"),
            (FILES[0], "one DICOM file and no archive"),
            (dicom_tar([b"hello" * 100]), "file 1 of the archive is not DICOM"),
            (dicom_tar([*FILES, b""]), "file 5 of the archive is not DICOM"),
        ):
            self.assert_refused(content, words)

    def test_cut(self) -> None:
        """An archive that is cut anywhere is refused, were it between two files: slices would be missing unseen."""
        for end in (PLACES[3], PLACES[3] + 100, PLACES[3] + 512, END, END + 511):
            self.assert_refused(ARCHIVE[:end], "cut short or damaged after")
        for end in (PLACES[1] + 700, END - 400):
            self.assert_refused(ARCHIVE[:end], "cut short")

    def test_damagedHeader(self) -> None:
        """A damaged header is no end of the archive."""
        content = bytearray(ARCHIVE)
        content[PLACES[2] + 5] ^= 1
        self.assert_refused(bytes(content), "cut short or damaged after 2 files")

    def test_sizesThatLie(self) -> None:
        """Sizes beyond the end, huge, negative, too small and not numbers are refused at once."""
        for field, words in (
            (b"00000077777\0", "cut short or damaged after 2 files"),
            (b"77777777777\0", "more than 4096 files or 1024 MiB"),
            (b"\x80" + bytes(3) + (2**62).to_bytes(8), "more than 4096 files or 1024 MiB"),
            (b"\xff" * 4 + (2**64 - 1024).to_bytes(8), "cut short or damaged after 2 files"),
            (b"zzzzzzzzzzz\0", "cut short or damaged after 2 files"),
            (b"00000001000\0", "image 3"),
        ):
            self.assert_refused(with_size(ARCHIVE, 2, field), words)
        folder_first = tar_of([*PLAIN[:2], (entry("folder", tarfile.DIRTYPE), b""), *PLAIN[2:]])
        endless = b"\x80" + (2**80).to_bytes(11)
        self.assert_refused(with_size(folder_first, 2, endless), "cut short or damaged after 2 files")

    def test_noPlainFiles(self) -> None:
        """Links, devices, pipes and sparse files are not followed, opened or blown up."""
        sparse = entry("s", tarfile.XHDTYPE)
        for header, content in (
            (entry("s", tarfile.SYMTYPE, linkname="/etc/passwd"), b""),
            (entry("h", tarfile.LNKTYPE, linkname="0.dcm"), b""),
            (entry("d", tarfile.CHRTYPE, devmajor=1, devminor=5), b""),
            (entry("b", tarfile.BLKTYPE, devmajor=8, devminor=0), b""),
            (entry("f", tarfile.FIFOTYPE), b""),
            (entry("o", tarfile.GNUTYPE_SPARSE), bytes(512)),
            (sparse, b"22 GNU.sparse.major=1\n"),
        ):
            self.assert_refused(
                tar_of([*PLAIN, (header, content)]), "entry 5 of the archive is no plain file"
            )

    def test_tooMany(self) -> None:
        """More files or entries than any series has are refused without reading on."""
        folder = tar_of([(entry("folder", tarfile.DIRTYPE), b"")])[:512]
        self.assert_refused(folder * 16500, "more than 4096 files")
