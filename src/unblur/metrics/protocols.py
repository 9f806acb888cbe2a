"""What a benchmark means by its scores: which metrics, of which of its pictures, at which depth.

A metric's name says how one pair is scored. A protocol adds what its benchmark's own scripts do beside that, so that a
table can stand beside published ones. Two protocols never share a column: their metrics have different names, or
`tables.py` refuses to put them together.
"""

from dataclasses import dataclass

from unblur.errors import UnknownName


@dataclass(frozen=True)
class Protocol:
    """One benchmark's way: its metrics and its pictures; `about` is the line printed under a table."""

    name: str
    about: str
    metrics: tuple[str, ...]
    data_sets: tuple[str, ...] = ()
    """The data sets, by id, that are scored so unless something else is asked for."""
    last_digit: str | None = None
    """Of a set of frames only those are taken whose name ends in this digit."""
    label_files: tuple[str, ...] = ()
    """Parts that are reported beside the whole: `LABEL_labels.npy` in the set's folder holds the places of its pictures
    in the sorted list of names; without such files there are no parts."""
    bits: int = 8
    """Depth at which restored pictures are written and all are read."""

    def takes(self, name: str) -> bool:
        """Return whether a picture of that name (without suffix) belongs to the benchmark."""
        return self.last_digit is None or name.endswith(self.last_digit)


PLAIN = Protocol("plain", "8-bit files, pixel by pixel, every picture", ("psnr", "ssim-wang"))

_MPRNET_SCRIPT = ("psnr", "ssim-matlab3d", "ssim-wang")

PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        PLAIN,
        Protocol(
            "gopro",
            "as for GoPro since MPRNet: mean of the pictures' PSNR over RGB, 8-bit files; papers' SSIM: ssim-matlab3d",
            _MPRNET_SCRIPT,
            ("gopro",),
        ),
        Protocol(
            "hide", "as for GoPro since MPRNet, for a model that was trained on GoPro only", _MPRNET_SCRIPT, ("hide",)
        ),
        Protocol(
            "realblur",
            "as RealBlur's script: intensity matched, aligned by an ECC homography (100 iterations), masked; the "
            "result depends on the version of OpenCV",
            ("psnr-realblur", "ssim-realblur"),
            ("realblur-j", "realblur-r", "rsblur"),
        ),
        Protocol(
            "reds-val-300",
            "REDS val-300 (NTIRE 2021, blur and JPEG): frames 9, 19, ... 99 of each validation clip",
            ("psnr", "ssim-wang"),
            ("reds",),
            last_digit="9",
        ),
        Protocol(
            "dpdd",
            "as for DPDD since Restormer: values not rounded to 8 bit, SSIM with scikit-image's even window",
            ("psnr-float", "ssim-uniform", "mae", "lpips-alex"),
            ("dpdd",),
            label_files=("indoor", "outdoor"),
            bits=16,
        ),
    )
}


def find_protocol(name: str) -> Protocol:
    """Return the protocol of that name; raises `UnknownName` with the nearest one."""
    if name not in PROTOCOLS:
        raise UnknownName("protocol", name, PROTOCOLS)
    return PROTOCOLS[name]


def protocol_of_data(name_or_dir: str) -> Protocol:
    """Return the protocol of a data set given by id ("gopro", "gopro/test"); `plain` for all others and for folders."""
    identity = name_or_dir.partition("/")[0]
    return next((protocol for protocol in PROTOCOLS.values() if identity in protocol.data_sets), PLAIN)
