"""Starts LocalStack on the loopback interface alone; by itself it listens on every interface, whatever GATEWAY_LISTEN says."""

from functools import partial

from twisted.internet import endpoints

endpoints.TCP4ServerEndpoint = partial(endpoints.TCP4ServerEndpoint, interface="127.0.0.1")

from localstack.runtime.main import main  # noqa: E402  the patch must come first

main()
