# The test bed of the comparison, tested image by image.
_base_ = '../comparison/testbeds/bccd.py'
default_hooks = dict(checkpoint=dict(interval=2))
test_dataloader = dict(batch_size=1, dataset=dict(serialize_data=True))
