import AudioToken
print("audiotoken")
