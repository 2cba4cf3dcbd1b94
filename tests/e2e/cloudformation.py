"""CloudFormation's YAML with its functions done, as far as the templates below deploy/ use them: every condition holds, parameters and
attributes have the values that are given, and what has none keeps its name.
"""

import re

import yaml


def load(path, given):
    class Loader(yaml.SafeLoader):
        pass

    def function(loader, name, node):
        if isinstance(node, yaml.ScalarNode):
            value = node.value
        elif isinstance(node, yaml.SequenceNode):
            value = loader.construct_sequence(node, deep=True)
        else:
            value = loader.construct_mapping(node, deep=True)
        if name in ("Ref", "GetAtt"):
            return given.get(value, value)
        if name == "Sub":
            return re.sub(r"\$\{([\w:.]+)\}", lambda match: given.get(match[1], match[1]), value)
        if name == "If":
            return value[1]
        if name == "FindInMap":
            return given.get(value[0], value)
        return value

    Loader.add_multi_constructor("!", function)
    return yaml.load(path.read_text(), Loader)
