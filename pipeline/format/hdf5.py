"""Write the HDF5 objects of a finished cache around its rows. No other module calls the HDF5 library."""

import io
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.format.header import IMAGES_OFFSET, USER_BLOCK, Extent
from pipeline.recipe import Recipe
from pipeline.system import files

_ALIGNED_FROM = 2048  # bytes; smaller tables may lie in the gap before the images
SMALLEST_IMAGES = 545  # bytes; with a smaller threshold, the root group would be aligned to where the images begin


def attributes_of(recipe: Recipe, content: str) -> dict[str, NDArray[Any]]:
    """Return the attributes of the dataset `images`, by name: the content of the cache, and every key of the recipe.

    Numbers are 64 bits wide, texts are fixed-length bytes, and a truth value is 0 or 1 in a byte. A key without a value
    is the text "none": libraries read an attribute without elements differently, and PyTables as a random number.
    """
    values = {"content": content} | recipe.to_dict()
    return {name: _attribute(value) for name, value in sorted(values.items())}


def _attribute(value: Any) -> NDArray[Any]:
    if isinstance(value, bool):
        return np.array(value, "|u1")
    value = "none" if value is None else value
    return np.array(value.encode("ascii") if isinstance(value, str) else value)


def write_objects(
    fd: int, images: Extent, tables: dict[str, NDArray[Any]], attributes: dict[str, NDArray[Any]]
) -> tuple[dict[str, Extent], int]:
    """Write superblock, object headers and tables into a file whose rows are in place already.

    The library writes through `_AroundRows`, so rows are not copied or touched. Everything is contiguous, allocated
    early, of fixed length and without time stamps: the same input gives the same bytes.

    Args:
        fd: the file, open for reading and writing, with its rows at `images.offset`. Its user block is not changed.
        images: the rows' extent.
        tables: in their order in the file. An empty one is stored as one zero row.
        attributes: of the dataset of the rows.

    Returns:
        The extent of each dataset, images first, and the size of the file.

    Raises:
        OSError: the disk failed.
    """
    import h5py  # here and not above, so that a build starts without it

    room = _AroundRows(fd, images)
    try:
        with h5py.File(
            room,
            "w",
            userblock_size=USER_BLOCK,
            libver=("earliest", "v108"),
            alignment_threshold=min(_ALIGNED_FROM, images.end - images.offset),
            alignment_interval=4096,
        ) as file:
            extents = {"images": images}
            rows = _create(h5py, file, images)
            if rows.get_offset() != images.offset:
                raise AssertionError(f"this HDF5 library does not put the first dataset at byte {IMAGES_OFFSET}")
            for name, value in attributes.items():
                space = h5py.h5s.create_simple(value.shape) if value.ndim else h5py.h5s.create(h5py.h5s.SCALAR)
                attribute = h5py.h5a.create(rows, name.encode(), h5py.h5t.py_create(value.dtype), space)
                attribute.write(value)
            for name, table in tables.items():
                stored = table if len(table) else np.zeros((1, *table.shape[1:]), table.dtype)
                extent = Extent(name, table.dtype.str, table.shape[1:], len(table), 0)
                dataset = _create(h5py, file, extent)
                dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, np.ascontiguousarray(stored), dataset.get_type())
                extents[name] = Extent(name, table.dtype.str, table.shape[1:], len(table), dataset.get_offset())
    except Exception:
        if room.error:  # the library reports its own error for ours
            raise room.error from None
        raise
    finally:
        room.fd = -1
    if room.error:
        raise room.error
    return extents, os.fstat(fd).st_size


def _create(h5py: Any, file: Any, extent: Extent) -> Any:
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_layout(h5py.h5d.CONTIGUOUS)
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    properties.set_obj_track_times(False)
    dtype = np.dtype(extent.dtype)
    stored_type = h5py.h5t.py_create(dtype)
    if dtype.kind == "S":
        stored_type.set_cset(h5py.h5t.CSET_UTF8)
    space = h5py.h5s.create_simple(extent.stored_shape)
    return h5py.h5d.create(file.id, extent.name.encode(), stored_type, space, properties)


class _AroundRows(io.RawIOBase):
    """A file object for the HDF5 library that protects user block and rows.

    Once `fd` is -1, every call seems to succeed and does nothing. After a failure the library writes again when the
    process ends, when the descriptor may belong to another file.
    """

    def __init__(self, fd: int, images: Extent) -> None:
        super().__init__()
        self.fd = fd
        self.images = images
        self.position = 0
        self.end = 0  # the library sees size 0, because it refuses to create a file over existing bytes
        self.error: BaseException | None = None

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self.position, os.SEEK_END: self.end}[whence]
        self.position = start + offset
        return self.position

    def tell(self) -> int:
        return self.position

    def readinto(self, buffer: Any) -> int:
        if self.fd < 0:
            return 0
        try:
            data = files.read_at(self.fd, len(buffer), self.position)
        except BaseException as error:
            self.error = error
            raise
        buffer[: len(data)] = data
        self.position += len(data)
        return len(data)

    def write(self, data: Any) -> int:
        if self.fd < 0:
            return len(data)
        start, end = self.position, self.position + len(data)
        try:
            if start < USER_BLOCK or (start < self.images.end and end > self.images.offset):
                raise AssertionError(f"the HDF5 library wrote bytes {start} to {end}, among the rows")
            files.write_all(self.fd, data, start)
        except BaseException as error:
            self.error = error
            raise
        self.position = end
        self.end = max(self.end, end)
        return len(data)

    def truncate(self, size: int | None = None) -> int:
        size = self.position if size is None else size
        if self.fd < 0:
            return size
        try:
            files.resize(self.fd, max(size, self.images.end))
        except BaseException as error:
            self.error = error
            raise
        self.end = size
        return size

    def flush(self) -> None:
        """Do nothing: `pwrite` keeps nothing back."""


def describe(path: str) -> dict[str, dict[str, Any]]:
    """Describe a cache as the HDF5 library sees it: dtype, shape, byte offset and attributes of each dataset.

    The library can hang or crash on a damaged file, so call this in a process of its own. Links are not followed, and
    only plain contiguous datasets are described.
    """
    import h5py

    view: dict[str, dict[str, Any]] = {}
    with h5py.File(path, "r", locking=False) as file:  # a program that has it open for writing is no damage
        for name in file:
            if not isinstance(file.get(name, getlink=True), h5py.HardLink) or not isinstance(file[name], h5py.Dataset):
                view[name] = {"kind": "no dataset"}
                continue
            dataset = file[name]
            properties = dataset.id.get_create_plist()
            if properties.get_layout() != h5py.h5d.CONTIGUOUS or properties.get_external_count():
                view[name] = {"kind": "not contiguous"}  # asked for its shape, a virtual dataset opens other files
                continue
            view[name] = {
                "dtype": dataset.dtype.str,
                "shape": list(dataset.shape),
                "offset": dataset.id.get_offset(),
                "attributes": {key: plain_attribute(np.asarray(value)) for key, value in dataset.attrs.items()},
            }
    return view


def plain_attribute(value: NDArray[Any]) -> list[Any]:
    """Return the dtype and the value of an attribute, for JSON."""
    return [value.dtype.str, value.tolist().decode("latin-1") if value.dtype.kind == "S" else value.tolist()]
