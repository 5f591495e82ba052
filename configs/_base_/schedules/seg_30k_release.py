# The A-FAN release's segmentation schedule. The release validates every 100 iterations and reports
# the best of them; here the last checkpoint counts.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=0.0001),
    paramwise_cfg=dict(custom_keys={'backbone': dict(lr_mult=0.1)}),
)
param_scheduler = [
    dict(type='PolyLR', eta_min=1e-6, power=0.9, begin=0, end=30_000, by_epoch=False)
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=30_000, val_interval=3000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
