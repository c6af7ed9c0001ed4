"""stub"""
class Statistics:
    pass
