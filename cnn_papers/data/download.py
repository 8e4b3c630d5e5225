"""Downloads public data sets and prepares them as array_record, with TensorFlow."""

import os
import pathlib
from typing import Any

from cnn_papers.errors import UserError

_IMAGENET_ARCHIVES = (
    ("ILSVRC2012_img_train.tar", 147_897_477_120),
    ("ILSVRC2012_img_val.tar", 6_744_924_160),
)


def find_archives(builder: Any, manual_dir: str) -> pathlib.Path:
    """Returns the folder of the archives that only the user can download.

    Raises:
      UserError: the folder is missing; archives of ImageNet are missing or of another size.
    """
    default = os.path.join(builder.data_dir_root, "downloads", "manual")
    root = pathlib.Path(manual_dir or default)
    if builder.name == "imagenet2012":
        needed = " and ".join(f"{file} ({size:,} bytes)" for file, size in _IMAGENET_ARCHIVES)
        for file, size in _IMAGENET_ARCHIVES:
            path = root / file
            actual_size = path.stat().st_size if path.is_file() else None
            if actual_size != size:
                state = "is not there"
                if actual_size is not None:
                    state = f"has {actual_size:,} bytes: download it again"
                raise UserError(
                    f"imagenet2012 needs {needed} in {root}, and {file} {state}; get both from "
                    "https://image-net.org/download-images (with an account), "
                    "or give their folder as --manual_dir"
                )
    elif builder.MANUAL_DOWNLOAD_INSTRUCTIONS and not root.is_dir():
        steps = " ".join(builder.MANUAL_DOWNLOAD_INSTRUCTIONS.split())
        raise UserError(
            f"{builder.name} must be downloaded by hand into {root} (or --manual_dir): {steps}"
        )
    return root


def bytes_to_write(builder: Any) -> int:
    """Returns the bytes that preparing a data set writes, 0 if TFDS does not know its size.

    They are twice the download and the data set, because TFDS sorts on disk before it writes.
    """
    if builder.name == "imagenet2012":  # the archives themselves are on disk already
        return 2 * sum(size for _, size in _IMAGENET_ARCHIVES)
    # The list of files is that of all configurations together.
    has_configurations = len(builder.BUILDER_CONFIGS) > 1
    listed = 0
    if not has_configurations:
        listed = sum(url.size for url in (builder.url_infos or {}).values())
    download = int(builder.info.download_size or listed)
    return 2 * (download + int(builder.info.dataset_size or download))


def download(builder: Any, archives: pathlib.Path) -> None:
    """Downloads what TFDS can, takes the rest from the folder `archives`, and writes array_record.

    Raises:
      UserError: no network, a missing package, a full disk, damaged files.
    """
    import requests
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download.extractor import ExtractError

    advice = (
        f"cannot download {builder.name}: check the network and HTTPS_PROXY, "
        f"or prepare it on another machine and copy {builder.data_dir} from there"
    )
    urls = [url for url in builder.url_infos or {} if url.startswith("http")]
    by_hand = builder.MANUAL_DOWNLOAD_INSTRUCTIONS is not None
    downloaded_before = any(pathlib.Path(builder.data_dir_root, "downloads").glob("*.INFO"))
    if urls and not by_hand and not downloaded_before:
        try:
            requests.head(urls[0], timeout=20)  # TFDS itself would try for minutes
        except (requests.exceptions.ConnectionError, requests.exceptions.Timeout) as error:
            raise UserError(f"{advice} ({_first_line(error)})") from error
    config = tfds.download.DownloadConfig(manual_dir=os.fspath(archives), try_download_gcs=False)
    try:
        builder.download_and_prepare(download_config=config, file_format="array_record")
    except (requests.exceptions.RequestException, tfds.download.DownloadError) as error:
        raise UserError(f"{advice} ({_first_line(error)})") from error
    except ImportError as error:
        raise UserError(
            f"preparing {builder.name} needs another package: {_first_line(error)}"
        ) from error
    except (OSError, ExtractError) as error:
        raise UserError(
            f"cannot prepare {builder.name} in {builder.data_dir}: {_first_line(error)}"
        ) from error
    if not pathlib.Path(builder.data_dir, "dataset_info.json").exists():
        raise UserError(f"{builder.data_dir} exists but holds no data set: remove it and try again")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
