"""What can be wrong with a request or a version, with the code that gRPC has for it."""

import grpc


class ServeError(Exception):
    """A request or version that can't be served.

    Attributes:
        code: of gRPC.
    """

    code: grpc.StatusCode = grpc.StatusCode.INTERNAL


class NotServedError(ServeError):
    """The model or version is not loaded here."""

    code = grpc.StatusCode.NOT_FOUND


class InvalidError(ServeError):
    """The request says something that can't be; asking again changes nothing."""

    code = grpc.StatusCode.INVALID_ARGUMENT


class FailedError(ServeError):
    """The graph failed on a request that looked right."""


class ArtifactError(ServeError):
    """An artifact can't be loaded."""

    code = grpc.StatusCode.DATA_LOSS
