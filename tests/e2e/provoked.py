"""Errors of the API, provoked through boto3 and held against the model that botocore has of each operation."""

import pytest
from botocore.exceptions import ClientError


def snake(operation):
    return "".join("_" + letter.lower() if letter.isupper() else letter for letter in operation).lstrip("_")


class Provoked:
    """Asks for errors, and keeps which operation has answered with which."""

    def __init__(self):
        self.errors = set()

    def __call__(self, client, operation, code, status=400, **request):
        with pytest.raises(ClientError) as caught:
            getattr(client, snake(operation))(**request)
        answer = caught.value.response
        got = answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"]
        assert got == (code, status), (operation, request, answer)
        assert answer["Error"]["Message"] and answer["ResponseMetadata"]["RequestId"], answer
        self.errors.add((operation, code))

    def check(self, client, operations, never, never_of):
        """That each modelled error was provoked or is in the tables of those that never occur, and that those did not."""
        model = client.meta.service_model
        modelled = {
            (operation, shape.name) for operation in operations for shape in model.operation_model(operation).error_shapes
        }
        missing = {pair for pair in modelled - self.errors if pair[1] not in never and pair not in never_of}
        assert not missing, sorted(missing)
        stale = {pair for pair in self.errors if pair in never_of or pair[1] in never}
        assert not stale, f"said never to occur, and occurred: {stale}"


def all_tests_of_this_file_ran(request, count):
    """Whether the whole file is being run, which the last test of it asks."""
    own = [item for item in request.session.items if item.fspath == request.node.fspath]
    return len(own) >= count
