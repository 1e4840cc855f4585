"""What a full disk, a broken database or a lost supervisor look like to the caller: Lambda's ServiceException."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from gateway.control.supervisor_link import Refused, SupervisorLost
from gateway.model.errors import ApiError, service_unavailable
from gateway.storage.metadata import StorageBusy, StorageError, StorageFull

_FULL = "No space is left on this host's state directory; nothing was changed."


@contextmanager
def as_service_errors() -> Iterator[None]:
    """Turn what storage and supervisor raise into 5xx; ApiError passes through."""
    try:
        yield
    except StorageFull as error:
        raise ApiError("ServiceException", _FULL) from error
    except StorageBusy as error:
        why = "The metadata store is locked by another program; nothing was changed. Try again."
        raise service_unavailable(why) from error
    except StorageError as error:
        raise ApiError(
            "ServiceException", f"The metadata store failed: {error}. Nothing was changed."
        ) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ApiError("ServiceException", _FULL) from error
        reason = error.strerror or type(error).__name__
        raise ApiError(
            "ServiceException", f"The state directory failed: {reason}. Nothing was changed."
        ) from error
    except Refused as error:
        raise ApiError("ServiceException", f"This host cannot run the function: {error}") from error
    except SupervisorLost as error:
        raise service_unavailable(f"This host cannot run functions now: {error}") from error
